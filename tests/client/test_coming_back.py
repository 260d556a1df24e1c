"""Connections that break: nothing is lost and nothing comes twice, wherever they break."""

from __future__ import annotations

import asyncio
import random
import signal
from pathlib import Path

import pytest
from tests.client.live_app import words
from tests.client.serving import EAGER, NODES, Reader, Served, network, said_in, served

from tertulia.client import LiveClient
from tertulia.wire.events import UserPressedKey


def whole(question: str) -> str:
    return "".join(words(question))


@pytest.mark.parametrize("node", NODES)
async def test_questions_are_answered_and_all_events_come(tmp_path: Path, node: str) -> None:
    async with served(tmp_path, node) as server, LiveClient(server.url) as client:
        reader = Reader(client)
        assert await client.say("a 3") == "a.0 a.1 a.2 "
        stream = client.ask("b 40")
        assert "".join([piece async for piece in stream]) == whole("b 40")
        assert stream.reply is not None
        assert stream.reply.seq is not None
        await reader.until(lambda seen: len(seen.notes) == 2)
        await reader.stop()
        assert list(reader.answers.values()) == [whole("a 3"), whole("b 40")]
        assert reader.notes == list(reader.answers)


@pytest.mark.parametrize("node", NODES)
@pytest.mark.parametrize("at", ["before", "0", "7", "after"])
async def test_an_abort_before_within_and_after_an_answer_changes_nothing(
    tmp_path: Path, node: str, at: str
) -> None:
    question = f"a 20 {at}" if at.isdigit() else "a 20"
    async with served(tmp_path, node) as server:
        async with LiveClient(server.url, reconnect=EAGER) as client:
            reader = Reader(client)
            if at == "before":
                client.abort()
            asking = asyncio.ensure_future(client.say(question))
            if at.isdigit():
                begun = whole(f"a {at}")
                await reader.until(lambda seen: seen.text == begun and bool(seen.events))
                client.abort()
                await client.send(UserPressedKey(digit="1"))
            reply = await asking
            if at == "after":
                client.abort()
            assert await client.say("b 2") == whole("b 2")
            await reader.until(lambda seen: len(seen.notes) == 2)
            await reader.stop()
        assert reply == whole("a 20")
        assert list(reader.answers.values()) == [whole("a 20"), whole("b 2")]
        assert reader.notes == list(reader.answers)
        assert reader.anew == 0
        assert [role for role, _ in await said_in(server, client.session_id)] == [
            *["user", "assistant"] * 2
        ]


async def _cut(server: Served, node: str, seed: int) -> int:
    """Ask eight questions over a network that breaks at random bytes; how often it broke."""
    chance = random.Random(f"{node} {seed}")
    questions = [f"q{number} {chance.choice([1, 5, 40])}" for number in range(8)]
    async with network(server.port) as way:
        async with LiveClient(way.url, reconnect=EAGER) as client:
            reader = Reader(client)
            way.plan = [
                (
                    chance.choice([1 << 30, chance.randrange(300, 2_500)]),
                    chance.randrange(200, 9_000),
                )
                for _ in range(12)
            ]
            way.cut()
            replies = [await client.say(question) for question in questions]
            await reader.until(lambda seen: len(seen.notes) >= len(questions))
            await reader.stop()
        assert replies == [whole(question) for question in questions]
        assert list(reader.answers.values()) == replies
        assert reader.notes == list(reader.answers)
        assert reader.anew == 0
        said = await said_in(server, client.session_id)
        assert [text for role, text in said if role == "user"] == questions
        assert [text for role, text in said if role == "assistant"] == replies
        return way.cuts


@pytest.mark.parametrize("node", NODES)
async def test_cuts_at_random_bytes_change_nothing(tmp_path: Path, node: str) -> None:
    async with served(tmp_path, node) as server:
        assert sum([await _cut(server, node, seed) for seed in range(8)]) > 20


@pytest.mark.soak
@pytest.mark.timeout(300)
@pytest.mark.parametrize("node", NODES)
async def test_cuts_at_many_random_bytes_change_nothing(tmp_path: Path, node: str) -> None:
    async with served(tmp_path, node) as server:
        assert sum([await _cut(server, node, seed) for seed in range(100, 250)]) > 500


async def _killed(folder: Path, node: str, clients: int) -> None:
    """Kill the server in the middle of many answers; each client gets its whole answer, once."""
    ready = asyncio.Semaphore(0)
    async with served(folder, node, WORD_PAUSE="0.001") as server, asyncio.TaskGroup() as tasks:
        for number in range(clients):
            tasks.create_task(_talk_over_a_kill(server, number, ready))
        for _ in range(clients):
            await ready.acquire()
        await server.stop(signal.SIGKILL)
        await server.start()


async def _talk_over_a_kill(server: Served, number: int, ready: asyncio.Semaphore) -> None:
    question = f"c{number} 40 {number % 20}"
    expected = [whole(question), whole("z 1")]
    async with LiveClient(server.url, reconnect=EAGER) as client:
        reader = Reader(client)
        begun = whole(f"c{number} {number % 20}")
        asking = asyncio.ensure_future(client.say(question))
        await reader.until(lambda seen: bool(seen.events) and seen.text == begun)
        before = client.ready
        ready.release()
        while client.ready is before or not client.connected:
            await asyncio.sleep(0.01)
        assert client.ready is not None
        assert client.ready.resumed
        await client.send(UserPressedKey(digit="1"))
        assert [await asking, await client.say("z 1")] == expected
        await reader.until(lambda seen: len(seen.notes) >= 2)
        await reader.stop()
        assert list(reader.answers.values()) == expected
        assert reader.notes == list(reader.answers)
    said = [("user", question), ("assistant", expected[0]), ("user", "z 1")]
    assert await said_in(server, client.session_id) == [*said, ("assistant", expected[1])]


@pytest.mark.parametrize("node", NODES)
async def test_after_a_kill_of_the_server_every_answer_is_had_in_the_end(
    tmp_path: Path, node: str
) -> None:
    await _killed(tmp_path, node, 10)


@pytest.mark.soak
@pytest.mark.timeout(300)
@pytest.mark.parametrize("node", NODES)
async def test_after_a_kill_in_the_middle_of_a_hundred_answers_all_are_had_in_the_end(
    tmp_path: Path, node: str
) -> None:
    await _killed(tmp_path, node, 100)
