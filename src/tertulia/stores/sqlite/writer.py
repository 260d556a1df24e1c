"""The one thread that writes a file: it commits together what waits together."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from queue import Empty, SimpleQueue
from time import monotonic

import apsw

from tertulia.errors import AgentError, StoreClosed, StoreUnavailable
from tertulia.stores import engine
from tertulia.stores.bells import Bells
from tertulia.stores.database import Database
from tertulia.stores.settling import settle
from tertulia.stores.sqlite.batches import Batches
from tertulia.stores.sqlite.checkpoints import Checkpoints
from tertulia.stores.sqlite.connection import translate
from tertulia.stores.sqlite.jobs import Job, fail
from tertulia.stores.sqlite.locks import WriteTurn
from tertulia.stores.statistics import Statistics

QUEUE_LIMIT = 32_768
"""Changes that may wait; one more is refused, because the disk does not keep up."""
BATCH_JOBS = 500
BATCH_BYTES = 4 << 20
POLL_SECONDS = 0.02
"""How often it looks for the commits of other processes while somebody watches."""
TIDY_SECONDS = 1.0

log = logging.getLogger(__name__)


class Writer:
    """Takes jobs from any thread, in order, and tells each its outcome after the commit."""

    def __init__(self, batches: Batches, turn: WriteTurn, bells: Bells) -> None:
        self._batches = batches
        self._turn = turn
        self._bells = bells
        self._checkpoints = Checkpoints(batches)
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        self._ahead: deque[Job] = deque()
        self._closing = False
        self._stopped = False
        self._version = 0
        self._polled = 0.0
        self.statistics = Statistics()
        self._thread = threading.Thread(target=self._main, name="tertulia-writer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def depth(self) -> int:
        return self._queue.qsize()

    @property
    def connection(self) -> Database:
        return self._batches.db

    def put(self, job: Job) -> None:
        """Raises StoreUnavailable when too much waits already."""
        if self._queue.qsize() >= QUEUE_LIMIT:
            raise StoreUnavailable(
                f"{QUEUE_LIMIT} changes wait to be written, and this one was not: slow down"
            )
        self._queue.put(job)
        if self._stopped:
            self._refuse_rest()

    def nudge(self) -> None:
        """Make a sleeping writer look around: somebody watches now, or it is to stop."""
        self._queue.put(None)

    def stop(self) -> None:
        """Finish what waits, and end the thread. Not for the thread itself."""
        self._closing = True
        self.nudge()
        self._thread.join()

    def truncate(self, _db: Database) -> bool:
        """For a lone job: leave nothing of what was erased in the journal."""
        return self._checkpoints.truncate()

    # -- the thread

    def _main(self) -> None:
        try:
            self._run()
        except BaseException:
            log.exception("the writer ended; the store must be opened again")
        finally:
            self._stopped = True
            self._turn.release()
            self._refuse_rest()
            self._batches.close()

    def _run(self) -> None:
        self._finish_removals()
        while True:
            first = self._next()
            if first is not None:
                self._process(first)
            elif self._closing and self._queue.empty():
                break
        if self._checkpoints.wanted:
            self._tidy()

    def _finish_removals(self) -> None:
        """Take away what a process that died had begun to delete."""
        with contextlib.suppress(AgentError, apsw.Error):
            db = self._batches.db
            while (key := engine.next_removal(db)) is not None:
                self._turn.take()
                engine.atomically(db, engine.remove_events, key)

    def _next(self) -> Job | None:
        """The job that waits longest; None where there is something else to do."""
        if self._ahead:
            return self._ahead.popleft()
        if self._bells and monotonic() - self._polled > POLL_SECONDS:
            self._poll()
        if self._queue.empty():
            self._turn.release()
        try:
            return self._queue.get(timeout=self._patience())
        except Empty:
            self._idle()
            return None

    def _patience(self) -> float | None:
        if self._bells:
            return POLL_SECONDS
        return TIDY_SECONDS if self._checkpoints.wanted else None

    def _idle(self) -> None:
        """Nothing was written for a while: let go of the journal, and of the pages in memory."""
        if not self._bells and self._checkpoints.wanted:
            self._tidy()
            with contextlib.suppress(apsw.Error):
                self._batches.db.execute("PRAGMA shrink_memory")

    def _process(self, first: Job) -> None:
        jobs = [first]
        started = monotonic()
        try:
            self._turn.take()
            if first.alone:
                first.result = first.run and first.run(self._batches.db)[0]
            else:
                self._gather(jobs)
                self._batches.commit(jobs)
        except AgentError as error:
            fail(jobs, error)
        except apsw.Error as error:
            fail(jobs, translate(error, "the store"))
        self.statistics.count(jobs, monotonic() - started)
        if self._queue.empty() and not self._ahead:
            self._turn.release()
        settle(jobs)
        self._bells.ring([job.touched for job in jobs])
        self._checkpoints.after_batch()

    def _gather(self, jobs: list[Job]) -> None:
        """Add what waits by now, up to the bounds of a batch."""
        room = BATCH_BYTES - jobs[0].cost
        take = self._queue.get_nowait
        for _ in range(min(self._queue.qsize(), BATCH_JOBS)):
            job = take()
            if job is None:
                continue
            if job.alone:
                self._ahead.append(job)
                return
            jobs.append(job)
            room -= job.cost
            if room < 0:
                return

    def _poll(self) -> None:
        """Ring all bells when another process has written."""
        self._polled = monotonic()
        try:
            version = self._batches.db.execute("PRAGMA data_version").fetchall()[0][0]
        except apsw.Error:
            log.exception("could not look for the commits of other processes")
            return
        if version != self._version:
            self._version = version
            self._bells.ring_all()

    def _tidy(self) -> None:
        with contextlib.suppress(AgentError, apsw.Error):
            self._turn.take()
            self._checkpoints.truncate()
        self._turn.release()

    def _refuse_rest(self) -> None:
        jobs: list[Job] = []
        with contextlib.suppress(Empty):
            while True:
                job = self._queue.get_nowait()
                if job is not None:
                    jobs.append(job)
        fail(jobs, StoreClosed("the store was closed before this was written"))
        if self._queue.empty() and not self._ahead:
            self._turn.release()
        settle(jobs)
