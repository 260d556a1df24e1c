"""Ctrl-C while a synchronous call waits: the coroutine puts its things in order."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable

import pytest

from tertulia.doors import Outcome, call, current_loop, protected

PATIENCE = 20
"""Seconds, on a slow machine, that a thread has to get somewhere."""


class Stopped(Outcome[int]):
    """An outcome at which a waiting thread is stopped, as by Ctrl-C."""

    def wait(self, timeout: float | None = None) -> bool:
        raise KeyboardInterrupt


def given_later(outcome: Outcome[int]) -> Callable[[], None]:
    """Start a thread that gives it once somebody waits for it; what is returned joins that."""
    thread = threading.Thread(target=lambda: give(outcome))
    thread.start()
    return thread.join


def give(outcome: Outcome[int]) -> None:
    until_waited_for(outcome)
    outcome.set_result(5)


def until_waited_for(outcome: Outcome[int]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not outcome._waiters:  # pyright: ignore[reportPrivateUsage]
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_it_is_raised_where_the_coroutine_waits_and_its_clauses_run_to_their_end() -> None:
    done: list[str] = []
    first, second = Outcome[int](), Outcome[int]()
    joins = [given_later(first), given_later(second)]

    async def work() -> None:
        try:
            await Stopped()
        except KeyboardInterrupt:
            done.append(f"except {await first}")
            raise
        finally:
            done.append(f"finally {await second}")

    with pytest.raises(KeyboardInterrupt):
        call(work())
    for join in joins:
        join()
    assert done == ["except 5", "finally 5"]
    assert current_loop() is None


def test_a_coroutine_may_go_on_after_it() -> None:
    async def work() -> int:
        try:
            return await Stopped()
        except KeyboardInterrupt:
            return 7

    assert call(work()) == 7


def test_stopped_again_while_it_puts_its_things_in_order_it_still_does_the_rest() -> None:
    done: list[str] = []

    async def work() -> None:
        try:
            try:
                await Stopped()
            finally:
                await Stopped()
        finally:
            done.append("the rest")

    with pytest.raises(KeyboardInterrupt):
        call(work())
    assert done == ["the rest"]


def test_protected_work_is_done_in_a_synchronous_call() -> None:
    outcome: Outcome[int] = Outcome()
    join = given_later(outcome)
    done: list[int] = []

    async def work() -> None:
        done.append(await outcome)

    call(protected(work))
    join()
    assert done == [5]


@pytest.mark.skipif(
    threading.current_thread() is not threading.main_thread(),
    reason="signals arrive on the main thread",
)
def test_a_real_ctrl_c_is_one() -> None:
    outcome, after = Outcome[int](), Outcome[int]()
    done: list[int] = []

    async def work() -> None:
        try:
            await outcome
        finally:
            done.append(await after)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    main = threading.main_thread().ident or 0

    def press() -> None:
        until_waited_for(outcome)
        signal.pthread_kill(main, signal.SIGINT)
        give(after)

    thread = threading.Thread(target=press)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            call(work())
    finally:
        thread.join()
        signal.signal(signal.SIGINT, before)
    assert done == [5]
