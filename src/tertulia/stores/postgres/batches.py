"""What is written together: which changes a batch takes, and the rows that it is made of.

A batch is one statement. So of one session it takes a row of changes that follow on each other,
of which one at most touches more than the head and the events; and no two changes that write the
same shared value. A change that may be refused late is written alone. What a batch cannot take
waits for the next one, and so does all that comes after it for the same session.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Hashable
from typing import Any

import msgspec

from tertulia.doors import current_loop
from tertulia.stores import engine
from tertulia.stores import rows as row
from tertulia.stores.base import Change, SessionRow
from tertulia.stores.postgres import rows
from tertulia.stores.postgres.rows import Values
from tertulia.stores.settling import waiter_for

BATCH_CHANGES = 500
BATCH_EVENTS = 1_000
BATCH_BYTES = 4 << 20


class Job:
    """A change that somebody wants, and how it comes back."""

    __slots__ = (
        "alone",
        "change",
        "cost",
        "error",
        "loop",
        "place",
        "plain",
        "recovered",
        "repeatable",
        "result",
        "sent",
        "waiter",
    )

    def __init__(self, change: Change) -> None:
        self.change = change
        self.loop = current_loop()
        self.waiter: Any = waiter_for(self.loop)
        self.plain = engine.is_plain(change)
        self.cost = sum([len(record.body) for record in change.records if record.body])
        after = change.after
        self.place: Hashable = (after.app, after.id) if change.create else after.key
        self.repeatable = self.plain or _is_repeatable(change)
        self.alone = not self.plain and not (self.repeatable and _is_certain(change))
        self.recovered = False
        """Whether an earlier attempt was found to have written it."""
        self.sent = False
        """Whether it may have been written already, by an attempt whose reply was lost."""
        self.result: SessionRow | None = None
        self.error: BaseException | None = None

    def follows(self, other: Job) -> bool:
        """Whether its fence holds where the other one is written."""
        return row.fence(self.change.before) == row.fence(other.change.after)


class Batch:
    """Jobs that one statement writes, each chain of a session as one change."""

    def __init__(self) -> None:
        self.chains: dict[Hashable, list[Job]] = {}
        self.plain = True
        self._rich: set[Hashable] = set()
        self._shared: set[Values] = set()
        self._room = BATCH_BYTES
        self._events = BATCH_EVENTS

    @property
    def jobs(self) -> list[Job]:
        """All of its jobs."""
        return [job for chain in self.chains.values() for job in chain]

    def add(self, job: Job) -> bool:
        """Take a job; False where it has to wait for another batch."""
        if not self._fits(job):
            return False
        self.chains.setdefault(job.place, []).append(job)
        self._room -= job.cost
        self._events -= len(job.change.records)
        if not job.plain:
            self.plain = False
            self._rich.add(job.place)
            self._shared.update(map(rows.shared_place, job.change.shared))
        return True

    def _fits(self, job: Job) -> bool:
        chain = self.chains.get(job.place)
        if chain is None:
            full = len(self.chains) >= BATCH_CHANGES
            too_much = self._room < job.cost or self._events < len(job.change.records)
            return not full and (not too_much or not self.chains) and self._is_new_shared(job)
        if self._room < job.cost or self._events < len(job.change.records):
            return False
        if job.change.create or chain[-1].change.create or not job.follows(chain[-1]):
            return False
        return job.plain or (job.place not in self._rich and self._is_new_shared(job))

    def _is_new_shared(self, job: Job) -> bool:
        return job.plain or self._shared.isdisjoint(map(rows.shared_place, job.change.shared))

    def rows(self) -> dict[str, list[Values]]:
        """The rows of each table of the statement; the number of a chain is its place."""
        tables: defaultdict[str, list[Values]] = defaultdict(list)
        for number, chain in enumerate(self.chains.values()):
            _add_rows(tables, number, chain)
        return tables


def gather(waiting: deque[Job], under_way: set[Hashable]) -> tuple[Batch, list[Job]]:
    """Take a batch from what waits, and the jobs that are to be written alone after it.

    Nothing is taken of the places that are under way. What has to wait longer stays, in its order.
    """
    batch, alone, later = Batch(), list[Job](), list[Job]()
    taken = set(under_way)
    for _ in range(min(len(waiting), 4 * BATCH_CHANGES)):
        job = waiting.popleft()
        if job.place in taken:
            later.append(job)
        elif job.alone and job.place not in batch.chains:
            alone.append(job)
            taken.add(job.place)
        elif job.alone or not batch.add(job):
            later.append(job)
            taken.add(job.place)
    waiting.extendleft(reversed(later))
    return batch, alone


def only(job: Job) -> Batch:
    """A batch of one job."""
    batch = Batch()
    batch.chains[job.place] = [job]
    batch.plain = job.plain
    return batch


def _is_repeatable(change: Change) -> bool:
    """Whether a second attempt finds out what became of the first, and does nothing twice."""
    moved = row.fence(change.before) != row.fence(change.after)
    return change.create or moved or not (change.shared or change.take)


def _is_certain(change: Change) -> bool:
    """Whether one statement can write all of it, and nothing can be refused late."""
    writes = change.shared
    places = {rows.shared_place(write) for write in writes}
    unique = len(places) == len(writes)
    return unique and not change.take and all(write.expect is None for write in writes)


def _add_rows(tables: dict[str, list[Values]], number: int, chain: list[Job]) -> None:
    first, last = chain[0].change, chain[-1].change
    if first.create:
        tables["birth"].append(rows.birth_values(number, first.after))
    else:
        tables["change"].append(rows.change_values(number, first.before, last.after))
    events = tables["event"]
    for job in chain:
        events += [(number, *msgspec.structs.astuple(each)) for each in job.change.records]
        if not job.plain:
            for name, values in _rich_rows(number, job.change, alone=job.alone):
                tables[name].append(values)


def _rich_rows(number: int, change: Change, *, alone: bool) -> list[tuple[str, Values]]:
    """The rows of what only some changes have; shared values are written apart when `alone`."""
    found: list[tuple[str, Values]] = []
    if not change.create and (rare := rows.rare_values(number, change)):
        found.append(("rare", rare))
    known = row.NO_DETAILS if change.create else change.before.details
    if change.after.details != known:
        found.append(("details", (number, row.details_text(change.after.details))))
    if change.branch is not None:
        found.append(("branch", (number, *msgspec.structs.astuple(change.branch))))
    if change.extend_cut is not None:
        found.append(("cut", (number, *change.extend_cut)))
    found += [("mark", (number, *msgspec.structs.astuple(mark))) for mark in change.marks]
    found += [("state", (number, *each)) for each in change.state]
    if change.request is not None:
        found.append(("request", row.request_values(number, change.request)))
    if not alone:
        found += [("shared", (number, *rows.shared_values(each))) for each in change.shared]
    return found
