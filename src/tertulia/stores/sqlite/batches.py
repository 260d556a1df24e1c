"""Group commit: one transaction for many jobs, and what each is told when it fails."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable

import apsw

from tertulia.errors import AgentError, OutcomeUnknown, StoreUnavailable
from tertulia.stores import engine
from tertulia.stores.database import Database, Values
from tertulia.stores.sqlite.connection import translate
from tertulia.stores.sqlite.jobs import Job, fail

OF_THE_FILE = (
    apsw.IOError,
    apsw.FullError,
    apsw.CorruptError,
    apsw.NotADBError,
    apsw.BusyError,
    apsw.ReadOnlyError,
    apsw.CantOpenError,
    apsw.NoMemError,
)
"""Errors that no single job is to blame for."""

EVENT_DIGEST = "SELECT digest FROM events WHERE session = ? AND seq = ?"
TRACE = "INSERT OR REPLACE INTO meta (name, value) VALUES ('failed_commits', ?)"

log = logging.getLogger(__name__)


class Batches:
    """Owns the connection that writes; used by one thread at a time."""

    def __init__(self, connect: Callable[[], Database], path: str) -> None:
        self._connect = connect
        self._path = path
        self._failures = 0
        self.wal_pages = 0
        self._lost = False
        self.db = self._open()

    def _open(self) -> Database:
        db = self._connect()
        db.set_wal_hook(self._count_pages)
        return db

    def _count_pages(self, _db: Database, _name: str, pages: int) -> int:
        self.wal_pages = pages
        return apsw.SQLITE_OK

    def commit(self, jobs: list[Job]) -> None:
        """Give every job its result or its error; what has a result is durable."""
        try:
            if self._lost:
                self._reopen()
            self.db.execute("BEGIN IMMEDIATE")
            self._apply(jobs)
        except Exception as error:
            self._undo(jobs, error)
            return
        try:
            self.db.execute("COMMIT")
        except apsw.Error as error:
            self._decide(jobs, error)

    def _apply(self, jobs: list[Job]) -> None:
        db = self.db
        events: list[Values] = []
        for job in jobs:
            if job.run is None:
                if engine.advance(db, job.update):
                    events += job.events
                elif job.before is not None:
                    job.error = engine.stale(job.before)
                continue
            if events:
                engine.add_events(db, events)
            try:
                job.result, events = job.run(db)
            except AgentError as refused:
                job.error, events = refused, []
            job.events = events
        if events:
            engine.add_events(db, events)

    def _undo(self, jobs: list[Job], error: Exception) -> None:
        """Nothing of the batch is written; one job's fault must not fail the others."""
        self._roll_back()
        if len(jobs) > 1 and not isinstance(error, OF_THE_FILE):
            for job in jobs:
                job.error = None
                self.commit([job])
            return
        for job in jobs:
            job.error = None
        fail(jobs, translate(error, self._path) if isinstance(error, apsw.Error) else error)

    def _roll_back(self) -> None:
        try:
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")
        except apsw.Error:
            log.exception("%s: could not roll back; opening it again", self._path)
            with contextlib.suppress(apsw.Error, AgentError):
                self._reopen()

    def _decide(self, jobs: list[Job], error: apsw.Error) -> None:
        """After an error at COMMIT, find out what became of the batch.

        A full disk cannot have taken the last frame of a commit. After any other error the frames
        may lie in the journal, unseen until a recovery; so a small commit is written in their
        place first, and then what can be read is what will stay.
        """
        log.error("%s: a commit failed: %s", self._path, error)
        if isinstance(error, apsw.FullError):
            self._roll_back()
            fail(jobs, translate(error, self._path))
            return
        written = None
        with contextlib.suppress(apsw.Error, AgentError):
            self._reopen()
            self._pass_by()
            written = self._is_written(jobs)
        if written is None:
            fail(jobs, OutcomeUnknown(f"{self._path}: {error}; read before you repeat"))
        elif not written:
            fail(jobs, StoreUnavailable(f"{self._path}: {error}; nothing was written"))

    def _reopen(self) -> None:
        self._lost = True
        with contextlib.suppress(apsw.Error):
            self.db.close(True)
        self.db = self._open()
        self._lost = False

    def _pass_by(self) -> None:
        self._failures += 1
        self.db.execute("BEGIN IMMEDIATE")
        self.db.execute(TRACE, (self._failures,))
        self.db.execute("COMMIT")

    def _is_written(self, jobs: list[Job]) -> bool | None:
        """A batch is written whole or not at all, so any event of it tells."""
        for job in jobs:
            if job.error is None and job.events:
                session, seq, *_, digest, _ = job.events[-1]
                found = self.db.execute(EVENT_DIGEST, (session, seq)).fetchall()
                return found == [(digest,)]
        return None

    def close(self) -> None:
        with contextlib.suppress(apsw.Error):
            self.db.close()
