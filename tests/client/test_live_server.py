"""A client and the real server: interruptions, refusals, take-overs, restarts, slow readers."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

import pytest
from tests.client.live_app import words
from tests.client.serving import EAGER, NODES, Reader, said_in, served
from websockets.asyncio.client import connect

from tertulia.client import LiveClient
from tertulia.errors import ConnectionDenied, ConnectionEnded, ConnectionTaken, LiveError
from tertulia.wire.events import AgentErrorEvent, LiveEvent, LLMRequest, UserPressedKey


def whole(question: str) -> str:
    return "".join(words(question))


@pytest.mark.parametrize("node", NODES)
async def test_an_interruption_stops_the_answer_and_keeps_what_was_heard(
    tmp_path: Path, node: str
) -> None:
    async with served(tmp_path, node) as server:
        async with LiveClient(server.url) as client:
            reader = Reader(client)
            stream = client.ask("a 20 6")
            heard = ""
            async for piece in stream:
                heard += piece
                if heard == whole("a 6"):
                    await client.interrupt()
            assert stream.reply is not None
            assert stream.reply == heard == whole("a 6")
            assert stream.reply.interrupted
            assert await client.say("b 2") == whole("b 2")
            await reader.stop()
        assert [text for _, text in await said_in(server, client.session_id)] == [
            *["a 20 6", whole("a 6")],
            *["b 2", whole("b 2")],
        ]


@pytest.mark.parametrize("node", NODES)
async def test_an_interruption_over_a_broken_connection_stops_the_answer(
    tmp_path: Path, node: str
) -> None:
    async with served(tmp_path, node) as server:
        async with LiveClient(server.url, reconnect=EAGER) as client:
            reader = Reader(client)
            asking = asyncio.ensure_future(client.say("a 20 6"))
            await reader.until(lambda seen: seen.text == whole("a 6"))
            client.abort()
            await client.interrupt()
            reply = await asking
            assert (reply, reply.interrupted) == (whole("a 6"), True)
            assert await client.say("b 2") == whole("b 2")
            await reader.stop()
        assert len(await said_in(server, client.session_id)) == 4


async def test_of_two_connections_the_newer_has_the_session_and_the_older_is_told(
    tmp_path: Path,
) -> None:
    async with served(tmp_path, "output") as server, LiveClient(server.url) as older:
        await older.say("a 1")
        async with LiveClient(server.url, session_id=older.session_id, after=older.seq) as newer:
            with pytest.raises(ConnectionTaken):
                _ = [event async for event in older.events()]
            with pytest.raises(ConnectionTaken):
                await older.say("b 1")
            assert await newer.say("c 1") == whole("c 1")
            assert newer.ready is not None
            assert newer.ready.resumed


async def test_many_connections_at_once_to_one_session_leave_one(tmp_path: Path) -> None:
    async with served(tmp_path, "output") as server, LiveClient(server.url) as first:
        await first.say("a 1")
        clients = [LiveClient(server.url, session_id=first.session_id) for _ in range(8)]
        entered = await asyncio.gather(
            *(client.__aenter__() for client in clients), return_exceptions=True
        )
        assert all(isinstance(each, LiveClient | ConnectionTaken) for each in entered), entered
        said = await asyncio.gather(
            *(client.say(f"c{number} 1") for number, client in enumerate(clients)),
            return_exceptions=True,
        )
        await asyncio.gather(*(client.close(code=1001) for client in clients))
    assert sum(isinstance(reply, str) for reply in said) == 1, said


async def test_in_another_process_a_client_goes_on_after_its_position(tmp_path: Path) -> None:
    async with served(tmp_path, "agent") as server:
        async with LiveClient(server.url) as first:
            reader = Reader(first)
            await first.say("a 3")
            await reader.until(lambda seen: len(seen.notes) == 1)
            position = first.seq
            await first.say("b 3")
            await reader.stop()
            await first.close(code=1001)
        async with LiveClient(server.url, session_id=first.session_id, after=position) as second:
            reader = Reader(second)
            await reader.until(lambda seen: len(seen.notes) == 1)
            await reader.stop()
        assert list(reader.answers.values()) == [whole("b 3")]
        assert "b 3" in [getattr(event, "content", "") for event in reader.events]


async def test_the_wrong_token_and_another_owner_are_refused(tmp_path: Path) -> None:
    tokens = json.dumps({"s3cret-of-ana": "ana", "s3cret-of-bo": "bo"})
    async with served(tmp_path, "output", TOKENS=tokens) as server:
        for token in (None, "wrong"):
            with pytest.raises(ConnectionDenied) as raised:
                await LiveClient(server.url, token=token).__aenter__()
            assert raised.value.code == 4401
            assert "s3cret" not in str(raised.value)
        async with LiveClient(server.url, token="s3cret-of-ana") as client:
            assert await client.say("a 1") == whole("a 1")
            with pytest.raises(ConnectionDenied, match="somebody else") as raised:
                await LiveClient(
                    server.url, token="s3cret-of-bo", session_id=client.session_id
                ).__aenter__()
            assert raised.value.code == 4403
            assert await client.say("b 1") == whole("b 1")
        assert "s3cret" not in server.log()


@pytest.mark.parametrize("node", NODES)
async def test_a_server_that_is_stopped_lets_the_answer_finish_and_the_client_comes_back(
    tmp_path: Path, node: str
) -> None:
    async with served(tmp_path, node, WORD_PAUSE="0.01") as server:
        async with LiveClient(server.url, reconnect=EAGER) as client:
            reader = Reader(client)
            asking = asyncio.ensure_future(client.say("a 60"))
            await reader.until(lambda seen: seen.text.startswith(whole("a 3")))
            assert await server.stop(signal.SIGTERM) in (0, -signal.SIGTERM)
            await server.start()
            assert await asking == whole("a 60")
            assert await client.say("b 2") == whole("b 2")
            await reader.until(lambda seen: len(seen.notes) >= 2)
            await reader.stop()
        assert list(reader.answers.values()) == [whole("a 60"), whole("b 2")]
        assert reader.notes == list(reader.answers)
        assert len(await said_in(server, client.session_id)) == 4


@pytest.mark.parametrize("node", NODES)
async def test_an_answer_that_a_stopping_server_cuts_off_is_had_in_the_end(
    tmp_path: Path, node: str
) -> None:
    async with served(tmp_path, node, FINISH_IN="0.1") as server:
        async with LiveClient(server.url, reconnect=EAGER) as client:
            reader = Reader(client)
            asking = asyncio.ensure_future(client.say("a 20 6"))
            await reader.until(lambda seen: seen.text == whole("a 6"))
            before = client.ready
            await server.stop(signal.SIGTERM)
            await server.start()
            while client.ready is before or not client.connected:
                await asyncio.sleep(0.01)
            await client.send(UserPressedKey(digit="1"))
            reply = await asking
            assert reply == whole("a 20") or reply.interrupted
            assert await client.say("b 2") == whole("b 2")
            await reader.stop()
        said = await said_in(server, client.session_id)
        assert [text for role, text in said if role == "user"] == ["a 20 6", "b 2"]


async def test_the_first_frame_of_a_connection_is_ready_also_in_the_middle_of_an_answer(
    tmp_path: Path,
) -> None:
    first: list[str] = []
    serving = served(tmp_path, "output", WORD_PAUSE="0.0002")
    async with serving as server, LiveClient(server.url) as client:
        await anext(client.ask("a 20000"))
        init = {"type": "system.init", "session_id": client.session_id, "after": client.seq}
        for _ in range(30):
            async with connect(server.url) as socket:
                await socket.send(json.dumps(init))
                first.append(json.loads(await socket.recv())["type"])
                socket.transport.abort()
    assert first == ["agent.ready"] * 30


async def test_who_never_reads_loses_the_connection_and_neither_others_nor_its_log_suffer(
    tmp_path: Path,
) -> None:
    async with served(tmp_path, "output") as server:
        async with connect(server.url, max_queue=1, ping_interval=None) as deaf:
            await deaf.send(json.dumps({"type": "system.init"}))
            ready = json.loads(await deaf.recv())
            ask = {"type": "agent.transcript.update", "role": "user", "content": "a 60000"}
            await deaf.send(json.dumps(ask))
            await deaf.send(json.dumps({"type": "system.llm.request"}))
            async with LiveClient(server.url) as other:
                assert await other.say("b 200") == whole("b 200")
            deaf.transport.abort()
        async with LiveClient(
            server.url, session_id=ready["session_id"], after=ready["seq"], reconnect=EAGER
        ) as client:
            reader = Reader(client)
            await reader.until(lambda seen: len(seen.notes) == 1)
            await reader.stop()
        assert list(reader.answers.values()) == [whole("a 60000")]


async def test_an_error_for_a_bad_frame_comes_and_the_session_lives(tmp_path: Path) -> None:
    async with served(tmp_path, "output") as server, LiveClient(server.url) as client:
        await client.send(LiveEvent(id="x" * 500))
        event = await anext(client.events())
        assert isinstance(event, AgentErrorEvent)
        assert await client.say("a 1") == whole("a 1")


async def test_a_client_that_left_for_good_comes_back_to_the_same_conversation(
    tmp_path: Path,
) -> None:
    async with served(tmp_path, "agent") as server:
        async with LiveClient(server.url) as first:
            await first.say("a 1")
        with pytest.raises(ConnectionEnded):
            await first.send(LLMRequest())
        async with LiveClient(server.url, session_id=first.session_id) as second:
            assert second.ready is not None
            assert second.ready.resumed
            assert await second.say("b 1") == whole("b 1")
        assert len(await said_in(server, first.session_id)) == 4


@pytest.mark.parametrize("node", NODES)
async def test_an_answer_that_is_too_long_for_the_log_has_an_end(tmp_path: Path, node: str) -> None:
    async with served(tmp_path, node) as server, LiveClient(server.url) as client:
        async with asyncio.timeout(12):
            asked = f"{'a' * 100} 15000"
            [came] = await asyncio.gather(client.say(asked), return_exceptions=True)
        assert isinstance(came, LiveError)
        assert await client.say("b 2") == whole("b 2")
