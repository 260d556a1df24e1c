"""The store of one PostgreSQL database: for many machines, and any thread or loop of each."""

from __future__ import annotations

import os
import threading
from collections.abc import Awaitable, Callable, Collection, Iterable
from hashlib import sha256
from typing import Any, Concatenate, ParamSpec, TypeVar

from tertulia.doors import Outcome
from tertulia.errors import ForkedRuntimeError, InvalidInput, StoreClosed
from tertulia.stores import living
from tertulia.stores.base import Change, Level, SessionRow, StoreStats
from tertulia.stores.bells import Bells
from tertulia.stores.clustering import WorkerRow
from tertulia.stores.postgres import address, migrations, workers
from tertulia.stores.postgres.driver import Connection
from tertulia.stores.postgres.engine import Engine
from tertulia.stores.postgres.migrations import Migrated, Migrations
from tertulia.stores.postgres.moving import PostgresMoves
from tertulia.stores.postgres.presence import Presence
from tertulia.stores.statistics import Statistics
from tertulia.values import text

T = TypeVar("T")
P = ParamSpec("P")
LONGEST_PLACE = 1_000
"""Bytes of a place that are kept as they are; a longer one is known by its hash."""


class PostgresStore(PostgresMoves):
    """Sessions, state and documents in a database; opened on first use.

    Everything runs on a thread of its own with an event loop, and what is awaited here belongs to
    no loop. An empty database gets its tables when it is first opened.
    """

    def __init__(self, url: str) -> None:
        self._address = address.parse(url)
        self.make_tables = True
        """Whether an empty database gets its tables; set it before the store is used."""
        self.migrations = Migrations()
        """What this code knows of tables; set it before the store is used."""
        self._worker = os.urandom(16)
        self._bells = Bells()
        self._presence = Presence(self._worker, self._address.lease, self._bells)
        self._starting = threading.Lock()
        self._engine: Engine | None = None
        self._end: StoreClosed | ForkedRuntimeError | None = None
        self._closing: tuple[Engine | None, Outcome[Any]] | None = None

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

    # -- workers

    @property
    def lease(self) -> float:
        return self._address.lease

    async def worker_is_alive(self, worker: bytes) -> bool:
        return worker == self._worker or await self._ask(workers.is_alive, worker)

    async def workers(self) -> list[WorkerRow]:
        return await self._ask(workers.every)

    async def find_worker(self, worker: bytes) -> WorkerRow | None:
        return await self._ask(workers.find, worker)

    async def advertise(self, url: str | None, secret: str | None) -> None:
        said = self._presence.said
        said.url = None if url is None else _kept(url, "the address of a worker")
        said.secret = None if secret is None else _kept(secret, "the secret of a worker")
        await self._ask(workers.advertise, self._worker, url, secret)

    def report_load(self, asked: Callable[[], dict[str, Any]] | None) -> None:
        self._presence.said.report = asked

    async def take_seat(self, place: str, *, over: bytes | None = None) -> bytes:
        return await self._ask(workers.take_seat, _place(place), self._worker, over)

    async def leave_seat(self, place: str) -> None:
        await self._ask(workers.leave_seat, _place(place), self._worker)

    async def abandoned(self, limit: int = 100, *, after: int = 0) -> list[SessionRow]:
        return await self._ask(workers.abandoned, limit, after)

    async def durability(self) -> dict[str, str]:
        return await self._ask(workers.durability)

    def on_lapse(self, tell: Callable[[bool], None]) -> Callable[[], None]:
        return self._presence.lapse.on_lapse(tell)

    def carry_bells(self, carrier: Callable[[Collection[int]], bool] | None) -> None:
        self._presence.ringing.carrier = carrier

    def ring_here(self, sessions: Iterable[int] | None) -> None:
        if sessions is None:
            self._bells.ring_all()
        else:
            self._bells.ring(sessions)

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
        known, make = self.migrations, self.make_tables
        return Engine(self._address, self._presence, known, make_tables=make)

    def watch(self, session: int, bell: Callable[[], None]) -> Callable[[], None]:
        engine = self._started()
        unwatch = self._bells.watch(session, bell)
        if not engine.ready:
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

    async def migrate(self, *, finish: bool = False) -> Migrated:
        """Bring the tables up to date, so that this code and older code can run on them.

        With `finish` what only older code needed is taken away: raises ConfigurationError,
        naming the workers, while some of it runs. On the caller's loop; opens nothing else.
        Raises StoreTooNew.
        """
        return await migrations.bring_up_to_date(self._address, self.migrations, finish=finish)

    async def close(self) -> None:
        engine, outcome = self._begin_closing()
        if engine is not None:
            await outcome.within(None)
            engine.thread.stop()

    def close_now(self) -> None:
        """Finish what was submitted and let go of everything, blocking this thread."""
        engine, outcome = self._begin_closing()
        if engine is not None:
            outcome.wait()
            engine.thread.stop()

    def _begin_closing(self) -> tuple[Engine | None, Outcome[Any]]:
        """Close once, whatever becomes of who asked for it; who asks again waits for the same."""
        with self._starting:
            if self._closing is None:
                engine = self._engine if self._end is None else None
                ended = Outcome[Any]() if engine is None else engine.thread.submit(_end(engine))
                self._end = self._end or StoreClosed(
                    f"{self.url} is closed; make a new store for it"
                )
                self._closing = (engine, ended)
        living.forget(self)
        return self._closing

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
        self._closing = None
        return [self._engine] if self._engine is not None else []


async def _end(engine: Engine) -> None:
    """Close all, and let the thread end by itself."""
    try:
        await engine.close()
    finally:
        engine.thread.stop()


def _place(place: str) -> str:
    """A place as it is kept. Raises InvalidInput."""
    given = _kept(place, "the place of a seat").encode()
    return place if len(given) <= LONGEST_PLACE else f"sha256:{sha256(given).hexdigest()}"


def _kept(value: str, what: str) -> str:
    """Text that the server keeps as it is. Raises InvalidInput."""
    if not text(value, what) or "\0" in value:
        raise InvalidInput(f"{what} is text without NUL characters, and not empty")
    return value
