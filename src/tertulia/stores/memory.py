"""A store for tests, notebooks and libraries: everything of SQLite's but the disk."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Generator
from os import urandom
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from tertulia.errors import AgentError, StoreClosed
from tertulia.stores import engine, queries
from tertulia.stores.base import Change, Level, SessionRow, StoreStats
from tertulia.stores.bells import Bells
from tertulia.stores.database import Database, connect
from tertulia.stores.operations import EngineStore

T = TypeVar("T")
P = ParamSpec("P")


class Settled(Generic[T]):
    """What an operation gave that was done before anyone could wait for it."""

    __slots__ = ("_error", "_value")

    def __init__(self, value: T | None = None, error: AgentError | None = None) -> None:
        self._value = value
        self._error = error

    def __await__(self) -> Generator[Any, Any, T]:
        if self._error is not None:
            raise self._error
        return self._value  # pyright: ignore[reportReturnType]
        yield


class MemoryStore(EngineStore):
    """Keeps all promises but durability; what it does is done when the call returns."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._db: Database | None = None
        self._closed = False
        self._worker = urandom(16)
        self._bells = Bells()
        self._commits = 0
        self._changes = 0
        self._refused = 0

    @property
    def level(self) -> Level:
        return "memory"

    @property
    def url(self) -> str:
        return "memory:"

    @property
    def worker(self) -> bytes:
        return self._worker

    async def incarnation(self) -> str:
        return self._read(queries.incarnation)

    def commit(self, change: Change) -> Awaitable[SessionRow]:
        try:
            row = self._transact(_commit, change)
        except AgentError as error:
            self._refused += 1
            return Settled(error=error)
        self._changes += 1
        self._bells.ring((row.key,))
        return Settled(row)

    def _read(
        self, query: Callable[Concatenate[Database, P], T], *args: P.args, **kw: P.kwargs
    ) -> T:
        with self._lock:
            return query(self._open(), *args, **kw)

    def _write(
        self,
        touched: int,
        run: Callable[Concatenate[Database, P], T],
        *args: P.args,
        **kw: P.kwargs,
    ) -> Awaitable[T]:
        try:
            result = self._transact(run, *args, **kw)
        except AgentError as error:
            return Settled(error=error)
        self._bells.ring((touched,))
        return Settled(result)

    def _write_now(
        self, run: Callable[Concatenate[Database, P], T], *args: P.args, **kw: P.kwargs
    ) -> T:
        return self._transact(run, *args, **kw)

    def _transact(
        self, run: Callable[Concatenate[Database, P], T], *args: P.args, **kw: P.kwargs
    ) -> T:
        with self._lock:
            result = engine.atomically(self._open(), run, *args, **kw)
            self._commits += 1
            return result

    def _open(self) -> Database:
        if self._closed:
            raise StoreClosed("this store is closed; make a new one")
        if self._db is None:
            db = connect(":memory:")
            engine.prepare(db)
            engine.atomically(db, engine.migrate, 0)
            self._db = db
        return self._db

    async def worker_is_alive(self, worker: bytes) -> bool:
        return worker == self._worker

    def watch(self, session: int, bell: Callable[[], None]) -> Callable[[], None]:
        return self._bells.watch(session, bell)

    def stats(self) -> StoreStats:
        return StoreStats(
            commits=self._commits,
            changes=self._changes,
            refused=self._refused,
            queue_depth=0,
            batch_size_max=min(self._changes, 1),
            commit_seconds_p50=0.0,
            commit_seconds_p99=0.0,
            wal_bytes=0,
        )

    async def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._db is not None:
                self._db.close()
                self._db = None


def _commit(db: Database, change: Change) -> SessionRow:
    row, events = engine.apply(db, change)
    engine.add_events(db, events)
    return row
