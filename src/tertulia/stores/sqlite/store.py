"""The store of one SQLite file: durable when a call returns, for many threads and processes."""

from __future__ import annotations

import os
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar, cast

import apsw

from tertulia.doors import Outcome
from tertulia.errors import ForkedRuntimeError, StoreClosed, StoreError, StoreReadOnly
from tertulia.stores import living, queries
from tertulia.stores.base import Change, Level, SessionRow, StoreStats
from tertulia.stores.bells import Bells
from tertulia.stores.database import Database
from tertulia.stores.sqlite import connection, files, locks, processes
from tertulia.stores.sqlite.batches import Batches
from tertulia.stores.sqlite.jobs import Job, change_job, lone_job, write_job
from tertulia.stores.sqlite.moving import SQLiteMoves
from tertulia.stores.sqlite.readers import Readers
from tertulia.stores.sqlite.writer import Writer

T = TypeVar("T")
P = ParamSpec("P")


class SQLiteStore(SQLiteMoves):
    """Sessions, state and documents in one file; opened on first use.

    Reads run in the calling thread on a connection lent for one query. Writes go to one thread,
    which commits together what waits together.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, unsafe_fs: bool = False, vfs: str | None = None
    ) -> None:
        self.path = os.fspath(path)
        self._file = str(Path(self.path).absolute())
        self._unsafe_fs = unsafe_fs
        self._vfs = vfs
        self._worker = os.urandom(16)
        self._opening = threading.Lock()
        self._ready = False
        self._end: StoreError | ForkedRuntimeError | None = None
        self._bells = Bells()
        self._readers = Readers(self._open_reader)
        self._writer: Writer | None = None
        self._turn: locks.WriteTurn | None = None
        self._lock: locks.WorkerLock | None = None
        self._incarnation = ""

    @property
    def level(self) -> Level:
        return "log"

    @property
    def url(self) -> str:
        return f"sqlite:///{self.path}" + ("?unsafe_fs=1" if self._unsafe_fs else "")

    @property
    def worker(self) -> bytes:
        return self._worker

    async def incarnation(self) -> str:
        if not self._ready:
            self._open()
        return self._incarnation

    @property
    def read_only(self) -> bool:
        """Whether the file or its folder may not be written to; known once it was opened."""
        return self._ready and self._writer is None

    # -- operations

    def commit(self, change: Change) -> Awaitable[SessionRow]:
        job = change_job(change)
        self._writing().put(job)
        return cast("Awaitable[SessionRow]", job.waiter)

    def _write(
        self,
        touched: int,
        run: Callable[Concatenate[Database, P], T],
        *args: P.args,
        **kw: P.kwargs,
    ) -> Awaitable[T]:
        job = write_job(touched, lambda db: run(db, *args, **kw))
        self._writing().put(job)
        return cast("Awaitable[T]", job.waiter)

    def _write_now(
        self, run: Callable[Concatenate[Database, P], T], *args: P.args, **kw: P.kwargs
    ) -> T:
        job = write_job(0, lambda db: run(db, *args, **kw), block=True)
        self._writing().put(job)
        outcome = cast("Outcome[T]", job.waiter)
        outcome.wait()
        return outcome.result()

    def _read(
        self, query: Callable[Concatenate[Database, P], T], *args: P.args, **kw: P.kwargs
    ) -> T:
        if not self._ready:
            self._open()
        try:
            db = self._readers.take()
            try:
                return query(db, *args, **kw)
            finally:
                self._readers.give(db)
        except apsw.Error as error:
            raise connection.translate(error, self.path) from error

    async def _erased(self) -> None:
        writer = self._writing()
        job: Job = lone_job(writer.truncate)
        writer.put(job)
        await job.waiter

    def _writing(self) -> Writer:
        if not self._ready:
            self._open()
        if self._writer is None:
            raise StoreReadOnly(
                f"{self.path} can be read but not written; check the permissions of the file and "
                "its folder"
            )
        return self._writer

    # -- life

    def _open(self) -> None:
        with self._opening:
            if self._end is not None:
                raise self._end
            if self._ready:
                return
            try:
                self._open_file()
            except apsw.Error as error:
                raise connection.translate(error, self.path) from error
            self._ready = True

    def _open_file(self) -> None:
        processes.check_not_inherited(self._file)
        if not self._unsafe_fs:
            files.refuse_network(self._file)
        if files.may_write(self._file):
            connection.create(self._file)
            self._start_writer()
        db = self._readers.take()
        try:
            connection.check_ours(db, self.path)
            if self._writer is None:
                connection.check_current(db, self.path)
            self._incarnation = queries.incarnation(db)
        finally:
            self._readers.give(db)

    def _start_writer(self) -> None:
        batches = Batches(lambda: connection.open_writer(self._file, vfs=self._vfs), self.path)
        folder = files.lock_folder(self._file)
        locks.sweep(folder)
        self._lock = locks.WorkerLock(folder, self._worker)
        self._turn = locks.WriteTurn(folder, self._worker)
        self._writer = Writer(batches, self._turn, self._bells)
        living.remember(self)
        self._writer.start()

    def _open_reader(self) -> Database:
        return connection.open_reader(self._file, vfs=self._vfs, read_only=self._writer is None)

    async def worker_is_alive(self, worker: bytes) -> bool:
        if not self._ready:
            self._open()
        return worker == self._worker or locks.is_alive(files.lock_folder(self._file), worker)

    def watch(self, session: int, bell: Callable[[], None]) -> Callable[[], None]:
        if not self._ready:
            self._open()
        unwatch = self._bells.watch(session, bell)
        if self._writer is not None:
            self._writer.nudge()
        return unwatch

    def stats(self) -> StoreStats:
        writer = self._writer
        if writer is None:
            return StoreStats(
                commits=0,
                changes=0,
                refused=0,
                queue_depth=0,
                batch_size_max=0,
                commit_seconds_p50=0.0,
                commit_seconds_p99=0.0,
                wal_bytes=files.size(f"{self._file}-wal"),
            )
        seen = writer.statistics
        return StoreStats(
            commits=seen.commits,
            changes=seen.changes,
            refused=seen.refused,
            queue_depth=writer.depth,
            batch_size_max=seen.batch_size_max,
            commit_seconds_p50=seen.percentile(0.5),
            commit_seconds_p99=seen.percentile(0.99),
            wal_bytes=files.size(f"{self._file}-wal"),
        )

    async def close(self) -> None:
        self.close_now()

    def close_now(self) -> None:
        """Finish what was submitted and let go of everything, blocking this thread."""
        with self._opening:
            if self._end is not None:
                return
            self._end = StoreClosed(f"{self.path} is closed; make a new store for it")
            self._ready = False
            if self._writer is not None:
                self._writer.stop()
            self._readers.close()
            if self._turn is not None:
                self._turn.close()
            if self._lock is not None:
                self._lock.release()
            living.forget(self)

    def abandon(self) -> list[Database]:
        """Be dead in a forked child; gives the connections that nobody may use or close."""
        processes.note_inherited(self.path)
        self._end = ForkedRuntimeError(
            f"{self.path} was opened before os.fork; start child processes by spawn, and make a "
            "new store in them"
        )
        self._ready = False
        self._opening = threading.Lock()
        if self._turn is not None:
            self._turn.close()
        if self._lock is not None:
            self._lock.abandon()
        inherited = self._readers.connections()
        return [*inherited, self._writer.connection] if self._writer else inherited
