"""The tasks that write: each commits together what waits together.

They are two, so that one batch is made ready while the server writes the other; the second waits
until as much waits as is under way, because small batches cost more. What a session has under way
is in one of them only, so that its changes keep their order.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Iterable
from time import monotonic
from typing import cast

from tertulia.errors import AgentError, StoreClosed, StoreUnavailable
from tertulia.stores.base import Change, SessionRow
from tertulia.stores.postgres.batches import Batch, Job, gather, only
from tertulia.stores.postgres.connections import Connections, Pauses
from tertulia.stores.postgres.driver import Connection
from tertulia.stores.postgres.errors import Fate, NotConnected, fate, translate, unknown
from tertulia.stores.postgres.writing import write, write_alone
from tertulia.stores.settling import settle
from tertulia.stores.statistics import Statistics

QUEUE_LIMIT = 32_768
"""Changes that may wait; one more is refused, because the server does not keep up."""
LANES = 2
"""Batches that may be on their way at one time."""

log = logging.getLogger(__name__)


class Writer:
    """Takes changes from any thread, in order, and tells each its outcome after the commit."""

    def __init__(self, wake: Callable[[], None], ring: Callable[[Iterable[int]], None]) -> None:
        self._wake = wake
        self._ring = ring
        self._waiting: deque[Job] = deque()
        self._lock = threading.Lock()
        self._asleep = True
        self._closing = False
        self._under_way: set[Hashable] = set()
        """The places of what is being written."""
        self._idle: list[asyncio.Future[None]] = []
        """The lanes that have nothing to do."""
        self.statistics = Statistics()

    @property
    def depth(self) -> int:
        """How many changes wait."""
        return len(self._waiting)

    def put(self, change: Change) -> Awaitable[SessionRow]:
        """Submit a change. Raises StoreUnavailable and StoreClosed."""
        job = Job(change)
        with self._lock:
            if self._closing:
                raise StoreClosed("the store was closed before this was written")
            if len(self._waiting) >= QUEUE_LIMIT:
                raise StoreUnavailable(
                    f"{QUEUE_LIMIT} changes wait to be written, and this one was not: slow down"
                )
            self._waiting.append(job)
            wake = self._asleep and self._has_enough()
            if wake:
                self._asleep = False
        if wake:
            self._wake()
        return cast("Awaitable[SessionRow]", job.waiter)

    # -- on the loop of the store

    def nudge(self) -> None:
        """There is something to write."""
        while self._idle:
            waiter = self._idle.pop()
            if not waiter.done():
                waiter.set_result(None)
                return

    def finish(self) -> None:
        """Take no more, and end when what waits is written."""
        with self._lock:
            self._closing = True
        while self._idle:
            self.nudge()

    def refuse_all(self, error: Exception, url: str) -> None:
        """Give up what waits."""
        with self._lock:
            jobs, self._waiting, self._asleep = self._waiting, deque(), True
        _fail(jobs, error, url)
        settle(jobs)

    async def run(self, connections: Connections, url: str) -> None:
        """Write until told to finish."""
        await asyncio.gather(*(self._write_all(connections, url) for _ in range(LANES)))

    async def _write_all(self, connections: Connections, url: str) -> None:
        while True:
            batch, alone = self._take()
            if batch.chains or alone:
                await self._write_some(connections, url, batch, alone)
            elif self._closing:
                return
            else:
                self._idle.append(asyncio.get_running_loop().create_future())
                await self._idle[-1]

    def _has_enough(self) -> bool:
        return len(self._waiting) >= len(self._under_way)

    def _take(self) -> tuple[Batch, list[Job]]:
        """What a lane shall write now; nothing where it may sleep."""
        with self._lock:
            batch, alone = Batch(), list[Job]()
            if self._has_enough():
                batch, alone = gather(self._waiting, self._under_way)
            self._asleep = bool(self._idle) or not (batch.chains or alone)
        return batch, alone

    async def _write_some(
        self, connections: Connections, url: str, batch: Batch, alone: list[Job]
    ) -> None:
        places = [*batch.chains, *[job.place for job in alone]]
        self._under_way.update(places)
        if self._has_enough():
            self.nudge()
        try:
            if batch.chains:
                await self._settle(connections, url, batch)
            for job in alone:
                await self._settle(connections, url, only(job))
        finally:
            self._under_way.difference_update(places)

    async def _settle(self, connections: Connections, url: str, batch: Batch) -> None:
        """Write a batch, and tell those who wait what became of it."""
        started = monotonic()
        try:
            decided = await self._write(connections, batch)
        except Exception as error:
            await self._failed(connections, url, batch, error)
            return
        left = [job for job in batch.jobs if job.result is None and job.error is None]
        with self._lock:
            self._waiting.extendleft(reversed(left))
        self._tell(decided, monotonic() - started)

    async def _failed(
        self, connections: Connections, url: str, batch: Batch, error: Exception
    ) -> None:
        """Nothing of a batch is known to be written; one job's fault must not fail the others."""
        jobs = batch.jobs
        if len(jobs) > 1 and fate(error) is Fate.REFUSED and not isinstance(error, AgentError):
            for job in jobs:
                await self._settle(connections, url, only(job))
            return
        _fail(jobs, error, url)
        self._tell(jobs, 0.0)
        if connections.away:
            self.refuse_all(error, url)

    async def _write(self, connections: Connections, batch: Batch) -> list[Job]:
        """Write, again while nothing is known to be written and the server is away."""
        pauses = Pauses()
        while True:
            try:
                return await self._attempt(connections, batch, pauses.until)
            except Exception as error:
                found = fate(error)
                log.debug("a batch was not written: %r", error)
                for job in batch.jobs:
                    job.sent |= found is Fate.LOST and not isinstance(error, NotConnected)
                twice = any(job.sent and not job.repeatable for job in batch.jobs)
                if found is Fate.REFUSED or twice or connections.away:
                    raise
                if not await pauses.pause():
                    raise

    async def _attempt(self, connections: Connections, batch: Batch, until: float) -> list[Job]:
        lone = batch.jobs[0] if batch.jobs[0].alone else None

        async def work(connection: Connection) -> list[Job]:
            if lone is None:
                return await write(connection, batch)
            try:
                await write_alone(connection, lone)
            except AgentError as refused:
                lone.result, lone.error = None, refused
            return [lone]

        return await connections.attempt(work, until, writing=True)

    def _tell(self, jobs: list[Job], seconds: float) -> None:
        self.statistics.count(jobs, seconds)
        self._ring([job.result.key for job in jobs if job.result is not None and not job.error])
        settle(jobs)


def _fail(jobs: Iterable[Job], error: Exception, url: str) -> None:
    """Tell jobs that nothing came of them, or that it is not known."""
    for job in jobs:
        job.error = unknown(error, url) if job.sent else translate(error, url)
