"""A database that is stopped, killed, restarted and cut off while workers use it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from tests.cluster.checker import check
from tests.cluster.links import linked
from tests.cluster.talking import held, load, long, said_in
from tests.cluster.workers import Client, Worker, all_ready, leased, started
from tests.postgres.proxy import proxied

from tertulia.testing.servers import PostgresServer, new_database

pytestmark = [pytest.mark.slow_crash, pytest.mark.timeout(120)]


@contextmanager
def a_server() -> Generator[PostgresServer]:
    """A server of this test alone."""
    server = PostgresServer()
    try:
        yield server
    finally:
        server.close()


def children(parent: int) -> list[int]:
    """The processes that a process has started."""
    found: list[int] = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            after_name = stat.read_text().rpartition(")")[2].split()
            if int(after_name[1]) == parent:
                found.append(int(stat.parent.name))
    return found


def kill_postmaster(server: PostgresServer) -> None:
    """``kill -9``; its backends see that, and end by themselves."""
    backends = children(server.pid)
    os.kill(server.pid, signal.SIGKILL)
    server.crash()
    while any(Path(f"/proc/{backend}").exists() for backend in backends):
        pass


def kill_a_backend(server: PostgresServer) -> None:
    """``kill -9`` of one that serves: the server then ends all others, and recovers."""
    for backend in children(server.pid):
        with suppress(OSError):
            if b"127.0.0.1" in Path(f"/proc/{backend}/cmdline").read_bytes():
                os.kill(backend, signal.SIGKILL)
                return
    raise AssertionError("the server has no backend that serves")


def stop(server: PostgresServer) -> None:
    """As an administrator does it."""
    server.stop()


def crash(server: PostgresServer) -> None:
    """As a power cut does it."""
    server.crash()


End = Callable[[PostgresServer], None]


@pytest.mark.parametrize(
    "ends",
    [
        (kill_a_backend, kill_postmaster),
        long((stop, crash, kill_postmaster, kill_a_backend) * 10),
    ],
    ids=["twice", "40 times"],
)
async def test_a_database_that_ends_again_and_again_loses_nothing_that_was_answered(
    ends: tuple[End, ...],
) -> None:
    with a_server() as server:
        address = new_database(server.url)
        with started(Worker(address), Worker(address)) as workers:
            await all_ready(workers)
            client = Client(workers)
            async with load(client) as more:
                for end in ends:
                    await more(10)
                    await asyncio.to_thread(end, server)
                    if end is not kill_a_backend:
                        await asyncio.to_thread(server.start)
                await more(20)
            await check(address, client.acknowledged)


async def test_nobody_is_robbed_when_all_locks_are_free_at_once() -> None:
    with a_server() as server:
        address = leased(new_database(server.url), 30)
        with started(Worker(address), Worker(address)) as workers:
            await all_ready(workers)
            client = Client(workers)
            await client.create("s")
            first = asyncio.ensure_future(client.say("s", "slow 2 first", first=0))
            await held(address, "s")
            await asyncio.to_thread(server.crash)
            await asyncio.to_thread(server.start)
            second = asyncio.ensure_future(client.say("s", "say second", first=1))
            assert (await first)["text"] == "heard first"
            assert (await second)["text"] == "second"
            assert client.repeated == 0
            assert await said_in(address, "s") == [
                "slow 2 first",
                "heard first",
                "say second",
                "second",
            ]
            await check(address, client.acknowledged)


@pytest.mark.parametrize("turns", [4, long(200)])
async def test_a_commit_whose_reply_was_lost_is_found_by_reading(postgres: str, turns: int) -> None:
    with proxied(postgres) as proxy, started(Worker(proxy.url), Worker(postgres)) as workers:
        await all_ready(workers)
        client = Client(workers)
        await client.create("s")
        for turn in range(turns):
            asked, answered = f"question-{turn}", f"answer-{turn}"
            verb = "count" if turn % 4 == 3 else "say"
            lost = asked if turn % 2 else answered
            proxy.lose_reply_to(lost.encode())
            await client.say("s", f"{verb} {asked} {answered}", first=0)
            assert proxy.lost.is_set()
        await check(postgres, client.acknowledged)


@pytest.mark.parametrize("patient", [False, long(True)], ids=["healed soon", "healed late"])
async def test_a_worker_cut_off_from_the_database_stops_its_turns_and_writes_nothing_stale(
    postgres: str, patient: bool
) -> None:
    address = leased(postgres)
    with linked(address) as link, started(Worker(link.url), Worker(address)) as workers:
        await all_ready(workers)
        parted, other = workers
        client = Client([other])
        await client.create("s")
        asked = asyncio.create_task(
            parted.ask("POST", "/v1/sessions/s/run", {"input": "slow 600 lost"})
        )
        await parted.says("began: slow 600 lost")
        link.cut()
        await parted.says("stopped: slow 600 lost")
        await client.say("s", "say after")
        if patient:
            assert (await asked).status >= 400
        link.heal()
        assert (await asked).status >= 400
        both = Client(workers)
        for turn in range(4):
            await both.say("s", f"say again {turn}", first=turn)
        texts = await said_in(address, "s")
        assert texts[:2] == ["say after", "after"]
        assert not any("lost" in text for text in texts)
        await check(postgres, client.acknowledged + both.acknowledged)
