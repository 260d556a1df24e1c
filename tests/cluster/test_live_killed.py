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

from tertulia.client import LiveClient
from tertulia.wire.events import UserPressedKey

LEASE = 2.0


def whole(question: str) -> str:
    return "".join(words(question))


class Worker(Served):
    """A worker of a database, in a process of its own."""

    def __init__(self, folder: Path, store: str, **env: str) -> None:
        folder.mkdir()
        super().__init__(folder, "agent", APP, **env)
        self.store = f"{store}?lease={LEASE:g}"


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
