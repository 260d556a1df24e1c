"""NATS that stands still, dies and comes back: sessions go on, and who watches misses nothing."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Generator
from contextlib import contextmanager

import pytest
from tests.cluster.checker import check
from tests.cluster.talking import SESSIONS, load, long
from tests.cluster.workers import Client, Worker, all_ready, started
from tests.server.web import Client as Web

from tertulia import Runtime
from tertulia.testing.servers import NatsServer

pytestmark = [pytest.mark.slow_crash, pytest.mark.timeout(60)]


@contextmanager
def a_server() -> Generator[NatsServer]:
    """A server of this test alone."""
    server = NatsServer()
    try:
        yield server
    finally:
        os.kill(server.pid, signal.SIGCONT)
        server.close()


@pytest.mark.parametrize("seconds", [1, long(60)])
async def test_sessions_go_on_without_nats_and_watchers_catch_up(
    postgres: str, seconds: int
) -> None:
    with a_server() as nats:
        made = [Worker(postgres, bus=nats.url) for _ in range(2)]
        with started(*made) as workers:
            await all_ready(workers)
            client = Client(workers)
            await client.create(SESSIONS[0])
            follower = await Web(workers[1].port).listen(
                "GET", f"/v1/sessions/{SESSIONS[0]}/follow?after=0"
            )
            async with load(client) as more:
                await more(10)
                os.kill(nats.pid, signal.SIGSTOP)
                await asyncio.sleep(seconds)
                await more(10)
                os.kill(nats.pid, signal.SIGCONT)
                await more(10)
                await asyncio.to_thread(nats.stop)
                await asyncio.sleep(seconds)
                await more(10)
                await asyncio.to_thread(nats.start)
                await more(10)
            async with Runtime(postgres) as runtime:
                events = await runtime.session(SESSIONS[0]).events()
            seen: list[int] = []
            while len(seen) < len(events):
                told = await follower.next()
                assert told is not None
                if told.comment is None:
                    seen.append(told.data["seq"])
            follower.hang_up()
            assert seen == [event.seq for event in events]
            assert client.repeated == 0
            await check(postgres, client.acknowledged)


async def test_workers_start_and_serve_where_no_nats_is(postgres: str) -> None:
    with a_server() as nats:
        nats.stop()
        made = [Worker(postgres, bus=nats.url) for _ in range(2)]
        with started(*made) as workers:
            await all_ready(workers)
            client = Client(workers)
            await client.create("s")
            for turn in range(4):
                await client.say("s", f"say {turn}", first=turn)
            nats.start()
            for turn in range(4):
                await client.say("s", f"say more {turn}", first=turn)
            assert client.repeated == 0
            await check(postgres, client.acknowledged)
