"""How the outcome of a job comes back to the thread or the loop of who waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Protocol

from tertulia.doors import Outcome

Loop = asyncio.AbstractEventLoop


class Settled(Protocol):
    """A job that has its result or its error; `loop` is None where a thread waits."""

    loop: Loop | None
    waiter: Any
    result: Any
    error: BaseException | None


def waiter_for(loop: Loop | None) -> Any:
    """What the asker awaits: a future of its loop, which is cheap, or an outcome."""
    return Outcome[Any]() if loop is None else loop.create_future()


def settle(jobs: Iterable[Settled]) -> None:
    """Tell those who wait; one call into each of their loops."""
    loops: dict[Loop, list[Settled]] = {}
    for job in jobs:
        if job.loop is not None:
            loops.setdefault(job.loop, []).append(job)
        elif job.error is None:
            job.waiter.set_result(job.result)
        else:
            job.waiter.set_error(job.error)
    for loop, waiting in loops.items():
        try:
            loop.call_soon_threadsafe(_settle_futures, waiting)
        except RuntimeError:
            continue  # the loop was closed, and whoever waited went with it


def _settle_futures(jobs: list[Settled]) -> None:
    for job in jobs:
        waiter = job.waiter
        if waiter.done():
            continue
        if job.error is None:
            waiter.set_result(job.result)
        else:
            waiter.set_exception(job.error)
