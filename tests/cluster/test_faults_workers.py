"""Workers that are killed, stopped and paused under load; a client says the same thing again."""

from __future__ import annotations

import asyncio
import random

import pytest
from tests.cluster.checker import check
from tests.cluster.talking import SESSIONS, gone, held, load, long, said_in
from tests.cluster.workers import Client, Worker, all_ready, leased, started

pytestmark = pytest.mark.slow_crash


async def test_two_workers_serve_one_session(postgres: str) -> None:
    with started(Worker(postgres), Worker(postgres)) as workers:
        await all_ready(workers)
        client = Client(workers)
        await client.create("s")
        for turn in range(6):
            data = await client.say("s", f"say {turn}", first=turn)
            assert data["text"] == str(turn)
        await asyncio.gather(*(client.say("s", f"count {n}", first=n) for n in range(6)))
        assert [worker.stop() for worker in workers] == [0, 0]
        assert client.repeated == 0
        await check(postgres, client.acknowledged)


@pytest.mark.parametrize("kills", [1, long(30)])
async def test_a_request_that_died_with_its_worker_is_answered_once_by_another(
    postgres: str, kills: int
) -> None:
    luck = random.Random(kills)
    with started(Worker(postgres), Worker(postgres)) as workers:
        await all_ready(workers)
        client = Client(workers)
        async with load(client) as more:
            for _ in range(kills):
                await more(luck.randrange(1, 40))
                victim = luck.randrange(2)
                workers[victim].kill()
                workers[victim].start()
                await workers[victim].ready()
                await more(10)
        await check(postgres, client.acknowledged)
        assert client.repeated >= kills


async def test_workers_that_are_told_to_stop_leave_no_turn_to_others(postgres: str) -> None:
    with started(Worker(postgres), Worker(postgres)) as workers:
        await all_ready(workers)
        client = Client(workers)
        async with load(client) as more:
            await more(10)
            assert await asyncio.to_thread(workers[0].stop) == 0
            workers[0].start()
            await workers[0].ready()
            await more(10)
        await check(postgres, client.acknowledged)


async def test_a_worker_that_was_paused_for_longer_than_its_lease_writes_nothing_more(
    postgres: str,
) -> None:
    with started(Worker(leased(postgres)), Worker(leased(postgres))) as workers:
        await all_ready(workers)
        paused, other = workers
        client = Client([other])
        await client.create("s")
        asked = asyncio.ensure_future(
            paused.ask("POST", "/v1/sessions/s/run", {"input": "slow 1 lost"})
        )
        await held(postgres, "s")
        paused.pause()
        await client.say("s", "say after")
        paused.go_on()
        answered = await asked
        assert answered.status >= 400, answered
        assert await said_in(postgres, "s") == ["say after", "after"]
        await check(postgres, client.acknowledged)


async def test_two_workers_that_resume_one_session_at_once_go_on_with_it_once(
    postgres: str,
) -> None:
    with started(Worker(postgres), Worker(postgres), Worker(postgres)) as workers:
        await all_ready(workers)
        dead, *others = workers
        client = Client(others)
        await client.create("s")
        asked = asyncio.ensure_future(
            dead.ask("POST", "/v1/sessions/s/run", {"input": "slow 0.5 text"})
        )
        holder = await held(postgres, "s")
        dead.kill()
        with pytest.raises((OSError, EOFError)):
            await asked
        await gone(postgres, holder)
        answers = await asyncio.gather(
            *(other.ask("POST", "/v1/sessions/s/resume", {}) for other in others)
        )
        assert sorted(answer.status for answer in answers)[0] == 200, answers
        assert await said_in(postgres, "s") == ["slow 0.5 text", "heard text"]
        await check(postgres)


@pytest.mark.parametrize("turns", [20, long(1_000)])
async def test_workers_whose_clocks_are_minutes_apart_do_all_once_and_in_order(
    postgres: str, turns: int
) -> None:
    with started(Worker(postgres, skew=-60), Worker(postgres, skew=60)) as workers:
        await all_ready(workers)
        client = Client(workers)
        async with load(client) as more:
            await more(turns // 2)
            workers[1].kill()
            workers[1].start()
            await workers[1].ready()
            await more(turns // 2)
            again = [client.say(SESSIONS[0], "say the same", first=n) for n in range(2)]
            one, other = await asyncio.gather(*again)
            assert one["turn"] == other["turn"]
        await check(postgres, client.acknowledged)
