"""Sessions whose worker was killed answer from another one."""

from __future__ import annotations

import asyncio
import time

import pytest
from tests.cluster.checker import check
from tests.cluster.talking import gone, held, long
from tests.cluster.workers import Answered, Client, Worker, all_ready, leased, started

from tertulia import Runtime

pytestmark = [pytest.mark.slow_crash, pytest.mark.timeout(120)]

LEASE = 2
TOUCHED = 100


@pytest.mark.parametrize("count", [TOUCHED, long(2_000)])
async def test_all_sessions_of_a_killed_worker_answer_when_they_are_touched_at_once(
    postgres: str, count: int
) -> None:
    address = leased(postgres, LEASE)
    with started(Worker(address), Worker(address)) as workers:
        await all_ready(workers)
        dying, other = workers
        client = Client([other])
        sessions = [f"s{number}" for number in range(count)]
        turns = await _open_turns(client, dying, address, sessions)
        holder = await held(address, *sessions)
        dying.kill()
        await asyncio.gather(*turns, return_exceptions=True)
        began = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            for session in sessions[:TOUCHED]:
                tasks.create_task(client.say(session, "say hello"))
        print(f"{TOUCHED} of {count} sessions answered in {time.monotonic() - began:.2f} s")
        await gone(address, holder)
        await check(address, client.acknowledged)
        async with Runtime(address) as runtime:
            for session in sessions[:TOUCHED]:
                types = [event.type for event in await runtime.session(session).events()]
                assert types.count("turn.abandoned") == 1
                assert types.count("turn.completed") == 1


async def _open_turns(
    client: Client, dying: Worker, address: str, sessions: list[str]
) -> list[asyncio.Task[Answered]]:
    """Turns that do not end, one in each session."""
    found: list[asyncio.Task[Answered]] = []
    for start in range(0, len(sessions), TOUCHED):
        some = sessions[start : start + TOUCHED]
        await asyncio.gather(*(client.create(session) for session in some))
        for session in some:
            body = {"input": "never ends"}
            found.append(
                asyncio.create_task(dying.ask("POST", f"/v1/sessions/{session}/run", body))
            )
        await held(address, *some)
    return found
