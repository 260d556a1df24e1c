"""All of a store that lives on its own loop: connections, writer, presence."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Concatenate, ParamSpec, TypeVar

from tertulia.errors import AgentError, NotAStore, StoreClosed
from tertulia.loop_thread import LoopThread
from tertulia.stores.postgres import changing, migrations, sql, workers
from tertulia.stores.postgres.address import Address
from tertulia.stores.postgres.connections import Connections
from tertulia.stores.postgres.driver import Connection
from tertulia.stores.postgres.migrations import Migrations
from tertulia.stores.postgres.presence import Presence
from tertulia.stores.postgres.writer import Writer

T = TypeVar("T")
P = ParamSpec("P")
SQL = sql.queries("workers.sql")
TIDY_SECONDS = 300.0
"""How often each worker looks for what long dead ones left, more or less."""

log = logging.getLogger(__name__)


class Engine:
    """Opened by the first who needs it; everything here runs on one loop."""

    def __init__(
        self, address: Address, presence: Presence, known: Migrations, *, make_tables: bool
    ) -> None:
        self._make_tables = make_tables
        self._known = known
        self.address = address
        self.thread = LoopThread("tertulia-postgres")
        self.incarnation = ""
        self.vectors = False
        self._connections = Connections(address)
        self._presence = presence
        self._opening = asyncio.Lock()
        self._ready = False
        self._closed = False
        self._tasks: list[asyncio.Task[None]] = []
        self._writing: asyncio.Task[None] | None = None
        self.writer = Writer(self._wake, presence.ringing.ring)

    def _wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # closed, which wrote what was put before
            self.thread.loop.call_soon_threadsafe(self._begin_writing)

    def _begin_writing(self) -> None:
        if self._writing is None and not self._closed:
            self._writing = self.thread.start(self._write())
        self.writer.nudge()

    async def _write(self) -> None:
        try:
            await self.open()
        except Exception as error:
            self.writer.refuse_all(error, self.address.shown)
            self._writing = None
            return
        await self.writer.run(self._connections, self.address.shown)

    async def run(
        self,
        again: bool,
        work: Callable[Concatenate[Connection, P], Awaitable[T]],
        *args: P.args,
        **kw: P.kwargs,
    ) -> T:
        """What `work` gives on a connection of an open store; see `Connections.run`."""
        if not self._ready:
            await self.open()
        return await self._connections.run(lambda one: work(one, *args, **kw), again=again)

    @property
    def ready(self) -> bool:
        """Whether it is open."""
        return self._ready

    def ring(self, session: int) -> None:
        """Tell those who watch a session."""
        self._presence.ringing.ring((session,))

    # -- life

    async def open(self) -> None:
        """Connect, make or check the schema, and be known as alive; once."""
        async with self._opening:
            if self._closed:
                raise StoreClosed(f"{self.address.shown} is closed; make a new store for it")
            if self._ready:
                return
            await self._connections.run(self._prepare)
            mine, connections, known = self._presence, self._connections, self._known
            await connections.retried(lambda: mine.enter(connections, known))
            self._tasks = [
                self.thread.start(mine.stay(connections, known)),
                self.thread.start(mine.lapse.watch(mine.heartbeat)),
                self.thread.start(mine.ringing.tell(connections)),
                self.thread.start(mine.ringing.look(connections)),
                self.thread.start(self._finish_removals()),
                self.thread.start(self._tidy()),
            ]
            self._ready = True

    async def _prepare(self, db: Connection) -> None:
        """Make the schema in an empty database; an older one is for `tertulia migrate`."""
        if not await migrations.meta(db):
            if not self._make_tables:
                raise NotAStore(f"{self.address.shown} is empty: run `tertulia migrate`")
            await self._known.make(db)
            await migrations.add_vectors(db)
        found = await migrations.meta(db)
        self._known.check(found, self.address.shown)
        self.incarnation = self._presence.said.database = found["incarnation"]
        self.vectors = bool((await db.fetch(SQL["has_vectors"]))[0][0])

    async def _finish_removals(self) -> None:
        """Take away what a process that died had begun to delete."""
        try:
            for key in await self._connections.run(changing.removals):
                while not await self._connections.run(
                    lambda one, key=key: changing.remove_events(one, key)
                ):
                    continue
        except AgentError:
            log.exception("the removal of deleted sessions will go on another time")

    async def _tidy(self) -> None:
        """Forget workers that are long dead, and their seats, until cancelled."""
        while True:
            try:
                while await self._connections.run(workers.forget):
                    continue
            except AgentError as error:
                log.warning("long dead workers will be forgotten another time: %s", error)
            await asyncio.sleep(TIDY_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311 - no secret

    async def close(self) -> None:
        """Write what waits, and let go of everything but the thread."""
        self.writer.finish()
        if self.writer.depth:
            self._begin_writing()
        if self._writing is not None:
            await self._writing
        async with self._opening:
            self._closed = True
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            with contextlib.suppress(Exception):
                await self._presence.leave()
            await self._connections.close()
