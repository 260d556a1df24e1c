"""A worker that is killed in the middle of answers: its clients go on at another one."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.client.live_app import words
from tests.client.serving import APP, EAGER, Reader, Served, said_in
from tests.cluster.live_workers import Balancer, balanced
from tests.live.talking import eventually

from tertulia import Agent, Runtime
from tertulia.client import LiveClient
from tertulia.errors import LiveError
from tertulia.live.ends import ENDS
from tertulia.testing import ScriptedModel
from tertulia.wire.events import ResponseEnd, ResponseStart, UserPressedKey

LEASE = 2.0


def whole(question: str) -> str:
    return "".join(words(question))


class Worker(Served):
    """A worker of a database, in a process of its own."""

    def __init__(self, folder: Path, store: str, **env: str) -> None:
        folder.mkdir()
        super().__init__(folder, "agent", APP, **env)
        self.store = f"{store}?lease={LEASE:g}"

    def signal(self, number: int) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    async def metrics(self) -> str:
        """What it counts."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(b"GET /metrics HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")
        try:
            return (await reader.read()).decode()
        finally:
            writer.close()


@asynccontextmanager
async def workers(folder: Path, store: str, **env: str) -> AsyncGenerator[tuple[Worker, Worker]]:
    """Two workers, to the end of the block."""
    one, two = Worker(folder / "one", store, **env), Worker(folder / "two", store, **env)
    try:
        await asyncio.gather(one.start(), two.start())
        yield one, two
    finally:
        await asyncio.gather(one.stop(signal.SIGKILL), two.stop(signal.SIGKILL))


class Talk:
    """A client in the middle of an answer."""

    def __init__(self, client: LiveClient, name: str) -> None:
        self.client = client
        self.reader = Reader(client)
        self.question = f"{name} 20 7"
        self.reply = asyncio.ensure_future(client.say(self.question))

    async def begun(self) -> None:
        """Wait until it has the first words."""
        first = whole(f"{self.question.split()[0]} 7")
        await self.reader.until(lambda seen: bool(seen.events) and seen.text == first)

    async def again(self, way: Balancer, port: int) -> None:
        """Connect anew, to another worker."""
        before = self.client.ready
        way.turn_to(port)
        await eventually(lambda: self.client.ready is not before and self.client.connected)


@pytest.mark.parametrize("bus", ["http", "nats"])
async def test_clients_of_a_killed_worker_get_their_whole_answers_from_another(
    tmp_path: Path, postgres: str, bus: str, request: pytest.FixtureRequest
) -> None:
    env = {"TERTULIA_BUS": request.getfixturevalue("nats")} if bus == "nats" else {}
    async with (
        workers(tmp_path, postgres, **env) as (one, two),
        balanced(one.port) as near,
        balanced(one.port) as far,
        LiveClient(near.url, reconnect=EAGER) as direct,
        LiveClient(far.url, reconnect=EAGER) as carried,
    ):
        talks = [Talk(direct, "direct"), Talk(carried, "carried")]
        for talk in talks:
            await talk.begun()
        await talks[1].again(far, two.port)
        before = [talk.client.ready for talk in talks]
        near._to = two.port  # pyright: ignore[reportPrivateUsage]
        await one.stop(signal.SIGKILL)
        for talk, ready in zip(talks, before, strict=True):
            client = talk.client
            await eventually(lambda c=client, r=ready: c.ready is not r and c.connected)
            assert client.ready is not None
            assert client.ready.resumed
            await client.send(UserPressedKey(digit="1"))
            assert await talk.reply == whole(talk.question)
            assert await client.say("z 2") == whole("z 2")
            await talk.reader.until(lambda seen: len(seen.answers) == 2)
            await talk.reader.stop()
            assert talk.reader.anew == 0
            said = await said_in(two, client.session_id)
            assert [text for _, text in said] == [
                *(talk.question, whole(talk.question), "z 2", whole("z 2"))
            ]


async def test_a_client_is_told_of_an_answer_that_was_given_up_after_the_kill(
    tmp_path: Path, postgres: str
) -> None:
    async with (
        workers(tmp_path, postgres) as (one, two),
        balanced(one.port) as way,
        LiveClient(way.url, reconnect=EAGER) as client,
    ):
        talk = Talk(client, "a")
        await talk.begun()
        begun = next(e.request_id for e in talk.reader.events if isinstance(e, ResponseStart))
        way._to = 1  # pyright: ignore[reportPrivateUsage]
        await one.stop(signal.SIGKILL)
        async with Runtime(two.store) as runtime:
            other = runtime.session(client.session_id, agent=Agent(model=ScriptedModel("yes")))
            assert (await other.run_async("are you there?")).text == "yes"
            assert await other.events(types="turn.abandoned")
        way.turn_to(two.port)
        with pytest.raises(LiveError, match="no part of the history"):
            await talk.reply
        assert await client.say("z 2") == whole("z 2")
        await talk.reader.until(lambda seen: whole("z 2") in seen.answers.values())
        ends = [each for each in talk.reader.events if isinstance(each, ResponseEnd)]
        assert [(end.request_id == begun, end.discarded) for end in ends] == [
            (False, False),
            (True, True),
            (False, False),
        ]
        await talk.reader.stop()


async def test_a_worker_that_stood_still_for_longer_than_its_lease_lets_its_sessions_go(
    tmp_path: Path, postgres: str
) -> None:
    async with (
        workers(tmp_path, postgres) as (one, two),
        balanced(one.port) as way,
        LiveClient(way.url, reconnect=EAGER) as client,
    ):
        talk = Talk(client, "a")
        await talk.begun()
        one.signal(signal.SIGSTOP)
        await talk.again(way, two.port)
        await client.send(UserPressedKey(digit="1"))
        assert await talk.reply == whole(talk.question)
        one.signal(signal.SIGCONT)
        while "tertulia_sessions_held 0\n" not in await one.metrics():
            await asyncio.sleep(0.05)
        assert await client.say("z 2") == whole("z 2")
        await talk.reader.until(lambda seen: len(seen.answers) == 2)
        await talk.reader.stop()
        assert talk.reader.anew == 0
        async with Runtime(two.store) as runtime:
            session = runtime.session(client.session_id)
            ends = [each for each in await session.events() if each.type in ENDS]
            assert [each.type for each in ends] == ["turn.completed"] * 2
            assert (await session.verify()).ok
