"""The store of one PostgreSQL database: for many machines, and any thread or loop of each."""

from __future__ import annotations

import os
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

from tertulia.doors import Outcome
from tertulia.errors import ForkedRuntimeError, StoreClosed
from tertulia.stores import living
from tertulia.stores.base import Change, Level, SessionRow, StoreStats
from tertulia.stores.bells import Bells
from tertulia.stores.postgres import address, migrations
from tertulia.stores.postgres.driver import Connection
from tertulia.stores.postgres.engine import Engine
from tertulia.stores.postgres.operations import Operations
from tertulia.stores.statistics import Statistics

T = TypeVar("T")
P = ParamSpec("P")


class PostgresStore(Operations):
    """Sessions, state and documents in a database; opened on first use.

    Everything runs on a thread of its own with an event loop, and what is awaited here belongs to
    no loop. An empty database gets its tables when it is first opened.
    """

    def __init__(self, url: str) -> None:
        self._address = address.parse(url)
        self.make_tables = True
        """Whether an empty database gets its tables; set it before the store is used."""
        self._worker = os.urandom(16)
        self._bells = Bells()
        self._starting = threading.Lock()
        self._engine: Engine | None = None
        self._end: StoreClosed | ForkedRuntimeError | None = None

    @property
    def level(self) -> Level:
        return "log"

    @property
    def url(self) -> str:
        return self._address.shown

    @property
    def worker(self) -> bytes:
        return self._worker

    async def incarnation(self) -> str:
        engine = self._started()
        if not engine.incarnation:
            await engine.thread.submit(engine.open())
        return engine.incarnation

    # -- operations

    def commit(self, change: Change) -> Awaitable[SessionRow]:
        return self._started().writer.put(change)

    def _ask(
        self,
        work: Callable[Concatenate[Connection, P], Awaitable[T]],
        *args: P.args,
        **kw: P.kwargs,
    ) -> Outcome[T]:
        engine = self._started()
        return engine.thread.submit(engine.run(True, work, *args, **kw))

    def _ask_once(
        self,
        work: Callable[Concatenate[Connection, P], Awaitable[T]],
        *args: P.args,
        **kw: P.kwargs,
    ) -> Outcome[T]:
        engine = self._started()
        return engine.thread.submit(engine.run(False, work, *args, **kw))

    def _ring(self, session: int) -> None:
        engine = self._started()
        engine.thread.loop.call_soon_threadsafe(engine.ring, session)

    async def _has_vectors(self) -> bool:
        engine = self._started()
        await engine.thread.submit(engine.open())
        return engine.vectors

    @staticmethod
    def _wait(outcome: Outcome[T]) -> T:
        outcome.wait()
        return outcome.result()

    # -- life

    def _started(self) -> Engine:
        """Raises StoreClosed, ForkedRuntimeError, and UsageError on the store's own thread."""
        if self._end is not None:
            raise self._end
        engine = self._engine
        if engine is None:
            with self._starting:
                engine = self._engine
                if engine is None:
                    engine = self._engine = self._new_engine()
                    living.remember(self)
        engine.thread.check_not_mine()
        return engine

    def _new_engine(self) -> Engine:
        return Engine(self._address, self._worker, self._bells, make_tables=self.make_tables)

    async def worker_is_alive(self, worker: bytes) -> bool:
        engine = self._started()
        return worker == self._worker or await engine.thread.submit(engine.is_alive(worker))

    def watch(self, session: int, bell: Callable[[], None]) -> Callable[[], None]:
        engine = self._started()
        unwatch = self._bells.watch(session, bell)
        engine.thread.submit(engine.open())
        return unwatch

    def stats(self) -> StoreStats:
        engine = self._engine
        seen = Statistics() if engine is None else engine.writer.statistics
        return StoreStats(
            commits=seen.commits,
            changes=seen.changes,
            refused=seen.refused,
            queue_depth=0 if engine is None else engine.writer.depth,
            batch_size_max=seen.batch_size_max,
            commit_seconds_p50=seen.percentile(0.5),
            commit_seconds_p99=seen.percentile(0.99),
            wal_bytes=0,
        )

    async def migrate(self) -> tuple[int, int, bool]:
        """Bring the tables up to date: their version before and after, and whether there is
        pgvector. On the caller's loop; opens nothing else. Raises StoreTooNew."""
        return await migrations.bring_up_to_date(self._address)

    async def close(self) -> None:
        closing = self._begin_closing()
        if closing is not None:
            engine, outcome = closing
            await outcome.within(None)
            engine.thread.stop()

    def close_now(self) -> None:
        """Finish what was submitted and let go of everything, blocking this thread."""
        closing = self._begin_closing()
        if closing is not None:
            engine, outcome = closing
            outcome.wait()
            engine.thread.stop()

    def _begin_closing(self) -> tuple[Engine, Outcome[Any]] | None:
        with self._starting:
            if self._end is not None:
                return None
            self._end = StoreClosed(f"{self.url} is closed; make a new store for it")
            engine = self._engine
        living.forget(self)
        if engine is None:
            return None
        return engine, engine.thread.submit(engine.close())

    def abandon(self) -> list[Engine]:
        """Be dead in a forked child; gives what nobody may use or close there.

        The child shares the selector of its parent: to close a connection would take it away
        from the parent's loop.
        """
        self._end = ForkedRuntimeError(
            f"{self.url} was opened before os.fork; start child processes by spawn, and make a "
            "new store in them"
        )
        self._starting = threading.Lock()
        return [self._engine] if self._engine is not None else []
