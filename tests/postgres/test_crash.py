"""Processes that are killed, stopped and restarted around one database; nothing is lost by it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time

import pytest
from tests.crash.children import child_of, children
from tests.crash.contention import (
    SESSION,
    check_all_answered_in_order,
    check_nothing_interleaved,
)
from tests.crash.promises import check_next_turn, losses
from tests.crash.test_kill import kill_at_a_random_moment
from tests.crash.workload import USER, Fact, Worker

from tertulia import Runtime
from tertulia.errors import OutcomeUnknown
from tertulia.testing.servers import PostgresServer, new_database

pytestmark = pytest.mark.slow_crash


@pytest.mark.parametrize(
    "kills", [2, pytest.param(40, marks=[pytest.mark.soak, pytest.mark.timeout(600)])]
)
async def test_all_that_was_acknowledged_survives_kill_9_at_any_moment(
    postgres: str, kills: int
) -> None:
    facts: list[Fact] = []
    for kill in range(kills):
        luck = random.Random(kill)
        with child_of("writes", postgres, kill) as child:
            facts.append(json.loads(child.hear()))
            facts += kill_at_a_random_moment(child, luck)
        async with Runtime(postgres) as runtime:
            assert await losses(runtime, facts) == []
            for info in await runtime.sessions(limit=None):
                await check_next_turn(runtime, info.id)
    assert len(facts) > kills


@pytest.mark.parametrize(("threads", "tasks"), [(1, 1), (2, 2)])
@pytest.mark.parametrize("turns", [8, pytest.param(100, marks=pytest.mark.soak)])
async def test_turns_at_once_from_two_processes_are_all_answered_in_order(
    postgres: str, threads: int, tasks: int, turns: int
) -> None:
    with children("contends", postgres, threads, tasks, turns, count=2) as contenders:
        for child in contenders:
            assert child.hear() == "ready"
        for child, name in zip(contenders, "ab", strict=True):
            child.tell(name)
        for child in contenders:
            assert child.end() == []
    names = {
        f"{name}.{thread}.{task}"
        for name in "ab"
        for thread in range(threads)
        for task in range(tasks)
    }
    async with Runtime(postgres) as runtime:
        session = runtime.session(SESSION)
        check_all_answered_in_order(await session.history(), names, turns)
        check_nothing_interleaved(await session.events())
        assert await session.verify()


async def test_a_holder_that_was_stopped_for_longer_than_its_lease_writes_nothing(
    postgres: str,
) -> None:
    with child_of("holds", f"{postgres}?lease=2", "s") as holder:
        assert holder.hear() == "holds"
        holder.stop()
        async with Runtime(postgres) as runtime:
            session = runtime.session("s", user_id=USER)
            async with session.turn("next") as turn:
                await turn.add_message({"role": "assistant", "content": "works"})
            before = await session.events()
            holder.go_on()
            holder.tell()
            assert holder.hear() == "StaleWriter"
            assert holder.end() == []
            assert await session.events() == before
            assert await session.verify()


@pytest.mark.soak
async def test_a_holder_that_lives_is_not_robbed_when_the_server_restarts() -> None:
    server = PostgresServer()
    try:
        address = new_database(server.url)
        with child_of("holds", address, "s") as holder:
            assert holder.hear() == "holds"
            async with Runtime(address) as runtime:
                row = await runtime.store.find(None, "s")
                assert row is not None
                assert row.holder is not None
                for again in (server.stop, server.crash):
                    await asyncio.to_thread(again)
                    await asyncio.to_thread(server.start)
                    for _ in range(100):
                        assert await runtime.store.worker_is_alive(row.holder)
                        await asyncio.sleep(0.01)
                holder.tell()
                assert holder.hear() == "wrote"
                assert holder.end() == []
                assert await runtime.session("s").verify()
    finally:
        server.close()


@pytest.mark.soak
async def test_a_server_that_ends_again_and_again_under_load_loses_nothing() -> None:
    server = PostgresServer()
    facts: list[Fact] = []
    try:
        address = new_database(server.url)
        async with Runtime(address) as one, Runtime(address) as other:
            ending = asyncio.Event()
            tasks = [
                asyncio.ensure_future(_work(runtime, name, facts, ending))
                for runtime, name in ((one, "a"), (one, "b"), (other, "c"), (other, "d"))
            ]
            await asyncio.to_thread(_end_again_and_again, server)
            ending.set()
            await asyncio.gather(*tasks)
        async with Runtime(address) as runtime:
            assert await losses(runtime, facts) == []
            for info in await runtime.sessions(limit=None):
                await check_next_turn(runtime, info.id)
        assert facts
    finally:
        server.close()


def _end_again_and_again(server: PostgresServer) -> None:
    """On a thread of its own: a synchronous call of a worker blocks the loop meanwhile."""
    for end in (server.crash, server.stop, server.crash, server.crash, server.stop):
        time.sleep(0.3)
        end()
        server.start()
    time.sleep(0.3)


async def _work(runtime: Runtime, name: str, facts: list[Fact], ending: asyncio.Event) -> None:
    """Work on; where an outcome cannot be known it is said so, and nothing is claimed."""
    worker = Worker(runtime, name, random.Random(name), facts.append)
    while not ending.is_set():
        with contextlib.suppress(OutcomeUnknown):
            await worker.step()
