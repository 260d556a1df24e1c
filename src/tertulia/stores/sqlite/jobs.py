"""What is handed to the writer's thread, and how its outcome comes back."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from tertulia.doors import current_loop
from tertulia.stores import engine
from tertulia.stores import rows as row
from tertulia.stores.base import Change, SessionRow
from tertulia.stores.database import Database, Values
from tertulia.stores.settling import Loop, waiter_for

Run = Callable[[Database], tuple[Any, list[Values]]]
"""Gives the result, and the events that the batch is to add."""


class Job:
    """One transaction that somebody wants, prepared as far as the asking thread can."""

    __slots__ = (
        "alone",
        "before",
        "cost",
        "error",
        "events",
        "loop",
        "result",
        "run",
        "touched",
        "update",
        "waiter",
    )

    def __init__(self, touched: int, run: Run | None, loop: Loop | None) -> None:
        self.touched = touched
        self.run = run
        self.loop = loop
        self.waiter: Any = waiter_for(loop)
        self.alone = False
        self.before: SessionRow | None = None
        self.update: Values = ()
        self.events: list[Values] = []
        self.cost = 0
        self.result: Any = None
        self.error: BaseException | None = None


def change_job(change: Change) -> Job:
    after = change.after
    if not engine.is_plain(change):
        return Job(after.key, lambda db: engine.apply(db, change), current_loop())
    job = Job(after.key, None, current_loop())
    job.before = change.before
    job.update = row.head_values(after) + row.fence(change.before)
    job.events = engine.event_values(change, after.key)
    job.cost = sum([len(record.body or b"") for record in change.records])
    job.result = after
    return job


def write_job(touched: int, run: Callable[[Database], Any], *, block: bool = False) -> Job:
    return Job(touched, lambda db: (run(db), []), None if block else current_loop())


def lone_job(run: Callable[[Database], Any]) -> Job:
    """One that runs outside of any transaction."""
    job = write_job(0, run)
    job.alone = True
    return job


def fail(jobs: Iterable[Job], error: Exception) -> None:
    """Give an error to those that have none yet."""
    for job in jobs:
        job.error = job.error or error
