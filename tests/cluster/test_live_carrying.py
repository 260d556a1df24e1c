"""A client that comes to another worker than its session's is carried to that one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from tests.client.serving import EAGER, Reader
from tests.cluster.live_workers import Working, balanced, lapse, working
from tests.live.talking import eventually

from tertulia import Token
from tertulia.client import LiveClient
from tertulia.events import Event
from tertulia.live import Node
from tertulia.live import link as links
from tertulia.live.ends import ENDS
from tertulia.server import carrying
from tertulia.wire.events import (
    AgentLog,
    LiveEvent,
    LLMRequest,
    ResponseChunk,
    ResponseEnd,
    TranscriptUpdate,
)

ALICE, BOB = "the-token-of-alice", "the-token-of-bob"


@pytest.fixture(params=["http", "nats"])
def bus(request: pytest.FixtureRequest) -> str | None:
    """How the workers speak to each other: None is over HTTP."""
    return None if request.param == "http" else request.getfixturevalue("nats")


async def test_a_client_that_comes_back_to_another_worker_gets_every_piece_once(
    postgres: str, bus: str | None
) -> None:
    async with (
        working(postgres, bus) as one,
        working(postgres, bus) as two,
        balanced(one.port) as way,
        LiveClient(way.url, reconnect=EAGER) as client,
    ):
        reader = Reader(client)
        stream = client.ask("a b |go c d")
        told = await anext(stream)
        while told != "a b ":
            told += await anext(stream)
        before = client.ready
        way.turn_to(two.port)
        await eventually(lambda: client.ready is not before)
        assert (two.app.hub.counts.carried, two.lives) == (1, [])
        one.model.let("go")
        assert told + "".join([piece async for piece in stream]) == "a b |go c d "
        assert await client.say("e f") == "e f "
        await reader.until(lambda seen: len(seen.answers) == 2)
        await reader.stop()
        assert reader.anew == 0
        assert one.lives == [client.session_id]
        said = await two.app.runtime.session(client.session_id).history()
        assert [each.text for each in said] == ["a b |go c d", "a b |go c d ", "e f", "e f "]


async def test_a_session_that_ended_for_good_is_free_for_every_worker(postgres: str) -> None:
    async with working(postgres) as one, working(postgres) as two:
        async with one.connected() as wire:
            await wire.init("s")
            assert await _seats(one) == 1
            await wire.connection.close(1000)
        await eventually(lambda: not one.lives)
        while await _seats(one):
            await asyncio.sleep(0.01)
        async with two.connected() as wire:
            assert (await wire.init("s")).resumed
            assert two.lives == ["s"]
            assert two.app.hub.counts.carried == 0


async def _seats(worker: Working) -> int:
    cluster = worker.app.runtime.cluster
    assert cluster is not None
    return sum(row.seats for row in await cluster.store.workers())


async def test_of_workers_that_are_asked_for_one_session_at_once_one_has_it(postgres: str) -> None:
    async with (
        working(postgres) as one,
        working(postgres) as two,
        one.connected() as here,
        two.connected() as there,
    ):
        await asyncio.gather(*(wire.send("system.init", session_id="s") for wire in (here, there)))
        await eventually(lambda: one.lives + two.lives)
        closed = [asyncio.create_task(wire.closed()) for wire in (here, there)]
        done, waiting = await asyncio.wait(closed, return_when=asyncio.FIRST_COMPLETED)
        assert [task.result()[0] for task in done] == [links.REPLACED]
        assert one.lives + two.lives == ["s"]
        assert one.app.hub.counts.carried + two.app.hub.counts.carried == 1
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)


async def test_a_carried_client_is_known_by_its_token_and_nobody_else_gets_its_session(
    postgres: str,
) -> None:
    auth = Token({ALICE: "alice", BOB: "bob"})
    async with (
        working(postgres, auth=auth) as one,
        working(postgres, auth=auth) as two,
        one.connected(f"?token={ALICE}") as wire,
    ):
        await wire.init("s")
        async with two.connected() as other:
            await other.send("system.init", session_id="s", token=BOB)
            code, reason = await other.closed()
            assert (code, reason) == (links.NOT_ALLOWED, "the session belongs to somebody else")
        async with two.connected() as nobody:
            await nobody.send("system.init", session_id="s", token="the-token-of-nobody")
            assert (await nobody.closed())[0] == links.NOT_AUTHENTICATED
        async with two.connected() as own:
            ready = await own.init("s", token=ALICE)
            assert ready.resumed
            assert two.app.hub.counts.carried == 1
            assert one.session("s").user_id == "alice"
        assert (await wire.closed())[0] == links.REPLACED


def test_the_head_of_a_carried_connection_has_no_token() -> None:
    head = carrying.head_of(carrying.packed_head("alice", '{"type":"system.init"}'))
    assert (head.user, head.first, head.text) == ("alice", b'{"type":"system.init"}', True)


class Long(LiveEvent, type="test.long"):
    """An event that is too long for the log."""

    text: str = ""


class Echo(Node):
    """Says back how long a text was, and then something longer."""

    async def process_event(self, event: LiveEvent) -> None:
        if isinstance(event, TranscriptUpdate):
            await self.send_event(AgentLog(name=str(len(event.content)), payload={"of": "x"}))
        if isinstance(event, LLMRequest):
            await self.send_event(Long(text="é" * 1_300_000))


async def test_frames_of_any_size_are_carried_as_text_or_binary_as_they_came(postgres: str) -> None:
    limit = 3_000_000
    async with (
        working(postgres, node=Echo, max_frame=limit) as one,
        working(postgres, max_frame=limit) as two,
        one.connected() as first,
    ):
        await first.init("s")
        for binary in (False, True):
            async with two.connected() as wire:
                for event in (
                    {"type": "system.init", "session_id": "s"},
                    {
                        "type": "agent.transcript.update",
                        "role": "user",
                        "content": "y" * 900_000,
                    },
                    {"type": "system.llm.request"},
                ):
                    text = json.dumps(event)
                    await wire.connection.send(text.encode() if binary else text)
                frames: list[str | bytes] = []
                while not frames or b'"test.long"' not in _raw(frames[-1]):
                    frames.append(await wire.connection.recv())
                assert {type(frame) for frame in frames} == {bytes if binary else str}
                assert any(b'"900000"' in _raw(frame) for frame in frames)
                assert len(_raw(frames[-1])) > 2_600_000
                await wire.connection.close(1001)


def _raw(frame: str | bytes) -> bytes:
    return frame if isinstance(frame, bytes) else frame.encode()


async def test_bad_frames_and_the_end_of_a_session_are_told_to_a_carried_client(
    postgres: str,
) -> None:
    async with working(postgres) as one, working(postgres) as two, one.connected() as first:
        await first.init("s")
        async with two.connected() as wire:
            await wire.init("s")
            await wire.connection.send("no json")
            told = await wire.until(LiveEvent, 2)
            assert told.type == "agent.error"
            one.session("s").finish("over and out")
            assert await wire.closed() == (links.NORMAL, "over and out")


async def test_a_carried_client_that_leaves_for_good_ends_its_session(postgres: str) -> None:
    async with working(postgres) as one, working(postgres) as two, one.connected() as first:
        await first.init("s")
        async with two.connected() as wire:
            await wire.init("s")
            await wire.connection.close(1000)
        await eventually(lambda: not one.lives)
        async with one.connected() as second:
            await second.init("t")
            async with two.connected() as wire:
                await wire.init("t")
                wire.abort()
            await one.left("t")
            assert one.lives == ["t"]


async def test_a_carried_client_that_does_not_read_slows_the_session_and_nothing_is_lost(
    postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "MOST_EVENTS", 100)
    async with working(postgres, node=Node) as one, working(postgres) as two:
        async with one.connected() as first, two.connected(max_queue=1) as wire:
            await first.init("s")
            after = (await wire.init("s")).seq
            session = one.session("s")
            said = 0
            while session.connected:
                await session.send_event(AgentLog(name=str(said), payload={"text": "x" * 50_000}))
                said += 1
                await asyncio.sleep(0)
            assert (await wire.closed())[0] == links.TOO_SLOW
            got = [event.name for event in wire.of(AgentLog)]
            assert got == [str(number) for number in range(len(got))]
            assert len(got) < said
            last = max((event.seq or 0 for event in wire.of(AgentLog)), default=after)
        async with two.connected() as wire:
            await wire.init("s", after=last)
            await wire.until(AgentLog, said - len(got))
            assert [event.name for event in wire.of(AgentLog)] == [
                str(number) for number in range(len(got), said)
            ]


async def _end(log: AsyncIterator[Event]) -> str:
    """How the first turn of a log ends."""
    async for event in log:
        if event.type in ENDS:
            return event.type
    raise AssertionError("the log has ended before its turn")


async def test_a_worker_whose_lease_runs_out_tells_its_clients_to_come_back(postgres: str) -> None:
    async with working(postgres) as one, working(postgres) as two:
        async with one.connected() as near, one.connected() as idle, two.connected() as far:
            await near.init("near")
            await idle.init("idle")
            await idle.connection.close(1001)
            async with one.connected() as first:
                await first.init("far")
                await first.connection.close(1001)
            await far.init("far")
            assert one.lives == ["far", "idle", "near"]
            for wire in (near, far):
                await wire.says("a |go b")
                await wire.until(ResponseChunk)
            lapse(one)
            for wire in (near, far):
                code, reason = await wire.closed()
                assert code == links.RESTARTING
                assert reason == "the lease of this worker has run out: come back"
                assert not wire.of(ResponseEnd)
            await eventually(lambda: not one.lives)
            async with one.connected() as refused:
                assert (await refused.closed())[0] == links.RESTARTING
            for session_id in ("near", "far"):
                log = two.app.runtime.session(session_id).follow(0)
                async with asyncio.timeout(10):
                    assert await _end(log) == "turn.interrupted"
            lapse(one, lapsed=False)
        async with two.connected() as again:
            assert (await again.init("near")).resumed
            await again.says("c d")
            assert (await again.until(ResponseEnd)).interrupted is False


async def test_a_server_whose_lease_has_run_out_is_not_ready(postgres: str) -> None:
    async with working(postgres) as one:
        lapse(one)
        assert await _status(one, "/ready") == 503
        lapse(one, lapsed=False)
        assert await _status(one, "/ready") == 200


async def _status(worker: Working, path: str) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", worker.port)
    writer.write(f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n".encode())
    try:
        return int((await reader.readuntil(b"\r\n")).split()[1])
    finally:
        writer.close()


async def test_a_session_whose_turn_another_worker_took_ends_here_without_a_word(
    postgres: str,
) -> None:
    async with working(postgres) as one, working(postgres) as two, one.connected() as wire:
        await wire.init("s")
        await wire.says("a |go b")
        await wire.until(ResponseChunk)
        taken = two.app.runtime.session("s")
        await taken.unlock()
        before = len(await taken.events())
        one.model.let("go")
        code, reason = await wire.closed()
        assert (code, reason.partition(":")[0]) == (
            links.RESTARTING,
            "another worker has taken the session over",
        )
        await eventually(lambda: not one.lives)
        assert len(await taken.events()) == before


async def test_clients_of_a_server_that_stops_go_on_at_another(postgres: str) -> None:
    async with working(postgres) as two, balanced(two.port) as way:
        async with working(postgres) as one:
            way.turn_to(one.port)
            client = await LiveClient(way.url, reconnect=EAGER).__aenter__()
            assert await client.say("a b") == "a b "
            way._to = two.port  # pyright: ignore[reportPrivateUsage]
        try:
            assert await client.say("c d") == "c d "
            assert two.lives == [client.session_id]
        finally:
            await client.close()
