"""The doors between threads, loops and synchronous callers."""

from __future__ import annotations

import asyncio
import threading

import anyio
import pytest

from tertulia.doors import Outcome, blocked_loop, call, current_loop


def test_a_coroutine_that_waits_for_nothing_is_run_to_its_end() -> None:
    async def give() -> int:
        return 5

    assert call(give()) == 5


def test_an_error_comes_out_of_the_door() -> None:
    async def fail() -> None:
        raise LookupError("gone")

    with pytest.raises(LookupError, match="gone"):
        call(fail())


def test_a_coroutine_that_needs_a_loop_says_so() -> None:
    async def sleep() -> None:
        await asyncio.sleep(0)

    with pytest.raises(RuntimeError, match="await its asynchronous twin"):
        call(sleep())


def test_a_synchronous_call_waits_for_another_thread() -> None:
    outcome: Outcome[int] = Outcome()
    thread = threading.Thread(target=lambda: outcome.set_result(5))

    async def wait() -> int:
        thread.start()
        return await outcome

    assert call(wait()) == 5
    thread.join()


async def test_a_task_waits_for_another_thread() -> None:
    outcome: Outcome[int] = Outcome()
    thread = threading.Thread(target=lambda: outcome.set_result(5))
    thread.start()
    with anyio.fail_after(5):
        assert await outcome == 5
    thread.join()


async def test_many_wait_for_one_outcome_and_all_get_it() -> None:
    outcome: Outcome[int] = Outcome()

    async def wait() -> int:
        return await outcome

    tasks = [asyncio.create_task(wait()) for _ in range(3)]
    await asyncio.sleep(0)
    outcome.set_result(5)
    assert await asyncio.gather(*tasks) == [5, 5, 5]
    assert await outcome == 5


def test_only_the_first_thing_given_counts() -> None:
    outcome: Outcome[int] = Outcome()
    outcome.set_result(1)
    outcome.set_result(2)
    outcome.set_error(LookupError())
    assert outcome.done
    assert outcome.result() == 1


async def test_an_error_that_was_given_is_raised_for_everyone() -> None:
    outcome: Outcome[int] = Outcome()
    outcome.set_error(LookupError("gone"))
    for _ in range(2):
        with pytest.raises(LookupError, match="gone"):
            await outcome


async def test_a_wait_ends_at_its_deadline_in_a_loop_and_outside() -> None:
    outcome: Outcome[int] = Outcome()
    assert not await outcome.within(0)
    assert not call(outcome.within(0))
    assert not outcome.wait(0)
    outcome.set_result(5)
    assert await outcome.within(0)
    assert call(outcome.within(0))
    assert outcome.wait(0)


async def test_who_stopped_waiting_is_forgotten() -> None:
    outcome: Outcome[int] = Outcome()

    async def wait() -> int:
        return await outcome

    for _ in range(1_000):
        assert not await outcome.within(0)
        assert not outcome.wait(0)
    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    assert len(outcome._waiters) == 1  # pyright: ignore[reportPrivateUsage]
    task.cancel()
    await asyncio.wait([task])
    assert len(outcome._waiters) == 0  # pyright: ignore[reportPrivateUsage]


async def test_threads_that_stop_waiting_and_one_that_gives_do_not_disturb_each_other() -> None:
    for _ in range(50):
        outcome: Outcome[int] = Outcome()
        threads = [threading.Thread(target=outcome.wait, args=(0,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        waits = [asyncio.create_task(outcome.within(0)) for _ in range(4)]
        patient = asyncio.create_task(outcome.within(10))
        giver = threading.Thread(target=outcome.set_result, args=(5,))
        giver.start()
        await asyncio.gather(*waits)
        assert await patient
        for thread in (*threads, giver):
            thread.join(10)
        assert len(outcome._waiters) == 0  # pyright: ignore[reportPrivateUsage]


async def test_a_cancelled_wait_does_not_spoil_the_outcome() -> None:
    outcome: Outcome[int] = Outcome()

    async def wait() -> int:
        return await outcome

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    outcome.set_result(5)
    assert await outcome == 5


def test_a_loop_that_was_closed_while_it_waited_is_no_error_for_the_giver() -> None:
    outcome: Outcome[int] = Outcome()

    async def leave() -> None:
        async def wait() -> int:
            return await outcome

        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        assert not task.done()

    asyncio.run(leave())
    outcome.set_result(5)
    assert outcome.result() == 5


async def test_a_synchronous_call_has_no_loop_and_blocks_the_one_around_it() -> None:
    running = asyncio.get_running_loop()

    async def look() -> tuple[object, object]:
        return current_loop(), blocked_loop()

    assert call(look()) == (None, running)
    assert await look() == (running, None)


def test_doors_may_be_nested() -> None:
    async def inner() -> int:
        return 1

    async def outer() -> int:
        return call(inner()) + call(inner())

    assert call(outer()) == 2
    assert current_loop() is None
