"""Runtime: the composition root. One store, one clock, and all that lives on them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, MutableMapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakValueDictionary, ref

from tertulia import doors, housekeeping, settings, stores
from tertulia import host as hosts
from tertulia.bus.opening import open_bus
from tertulia.clock import Clock, Ids, SystemClock, SystemIds
from tertulia.conversation import Conversation
from tertulia.errors import ForkedRuntimeError, InvalidInput, SessionNotFound, UsageError
from tertulia.gate import Slots
from tertulia.history import check_limit
from tertulia.host import Condenser
from tertulia.housekeeping import Erasure, Swept
from tertulia.opening import Opening
from tertulia.runtime import kept
from tertulia.runtime.listing import SessionInfo, info_of
from tertulia.session import Session
from tertulia.stores import SQLiteStore, open_store, sqlite
from tertulia.stores.base import LogStore, SessionStore, StoreStats
from tertulia.stores.clustering import Clustered

if TYPE_CHECKING:
    from tertulia.bus import Bus
    from tertulia.cluster.cluster import Cluster
    from tertulia.memory import Memory, MemoryService
    from tertulia.stores.sqlite import maintenance
    from tertulia.swarm import ClientSession, SessionConnectionService, Swarm


MAX_TURNS = 1_000_000
MAX_WAITING = 10_000
"""Turns that may wait because `max_turns` run."""


class Runtime:
    """Holds sessions and entities on one store.

    `store` is an address (``sqlite:///x.db``, ``memory:``), a store, or a `SessionStore` of
    yours; None is the configured default (`configure`, ``TERTULIA_STORE``, else memory). Inside
    ``async with Runtime(…)`` sessions made without ``runtime=`` belong to it, and agents without
    a model use `model`. `swarms` are those whose clients it serves; `bus` carries what happens to
    them: one of yours, or an address (``nats://…``; None: ``TERTULIA_BUS``, else this process
    alone). On ``postgresql://…`` it is one worker of many. At most `max_turns` turns run at once;
    others wait, in order. Nothing is opened before it is used. Raises ConfigurationError for an
    address that cannot be, and for two swarms of one name.
    """

    def __init__(  # noqa: PLR0913 its settings, all by name
        self,
        store: str | LogStore | SessionStore | None = None,
        *,
        model: Any = None,
        swarms: Iterable[Swarm] = (),
        bus: Bus | str | None = None,
        max_turns: int | None = None,
        clock: Clock | None = None,
        ids: Ids | None = None,
    ) -> None:
        self._store = as_store(store)
        self._model = model
        self._clock = clock or SystemClock()
        self._ids = ids or SystemIds()
        self._slots = slots_of(max_turns)
        self._pid = os.getpid()
        self._registry: WeakValueDictionary[tuple[Any, ...], Any] = WeakValueDictionary()
        self._dirty = kept.Dirty(self)
        self._unwritten: dict[tuple[str, str | None, str | None, str], Any] = {}
        self._tokens: list[Any] = []
        self._finder: MemoryService | None = None
        self._bus = bus_of(bus, self._clock)
        self._cluster = self._joinable()
        self._clients: SessionConnectionService | None = None
        if not isinstance(swarms, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidInput(f"swarms must be a list of swarms, as [{swarms!r}] is")
        given = list(swarms)
        if given:
            self._clients = self._serve(given)
        kept.opened.add(self)

    # -- what the living things need

    @property
    def store(self) -> LogStore:
        """The store. Raises ForkedRuntimeError in a forked child."""
        if os.getpid() != self._pid:
            raise ForkedRuntimeError(
                "this runtime was made before os.fork; start child processes by spawn, and make "
                "a new Runtime in them"
            )
        if self._cluster is not None:
            self._cluster.join()
        return self._store

    @property
    def cluster(self) -> Cluster | None:
        """What this process is among the workers of its database; None for other stores."""
        return self._cluster

    @property
    def clock(self) -> Clock:
        """Time."""
        return self._clock

    @property
    def ids(self) -> Ids:
        """Random ids and salts."""
        return self._ids

    @property
    def model(self) -> Any:
        """The model of agents that name none, inside ``async with`` of this runtime."""
        return self._model

    @property
    def slots(self) -> Slots:
        """The places for the turns that run at once in this process: `taken` says how many do."""
        return self._slots

    @property
    def registry(self) -> MutableMapping[tuple[Any, ...], Any]:
        """The conversations and entities that are in use."""
        return self._registry

    @property
    def dirty(self) -> set[Any]:
        """Conversations with state that is yet to be written."""
        return self._dirty

    @property
    def unwritten(self) -> dict[tuple[str, str | None, str | None, str], Any]:
        """The newest write of each key of shared state that is yet to be written."""
        return self._unwritten

    def condenser(self, driver: Any = None, agent: Any = None) -> Condenser:
        """What prunes with a model: an agent as it is, else the model of a session's driver."""
        from tertulia.agents.condenser import AgentCondenser

        if agent is not None:
            return AgentCondenser.of_agent(agent)
        return AgentCondenser.of_model(driver, self._model)

    def memory(self, user_id: str | None = None, app_name: str | None = None) -> Memory:
        """What is remembered of a user in an app, or without `user_id` of the app."""
        from tertulia.memory import Memory, VectorMemoryService

        if self._finder is None:
            self._finder = VectorMemoryService()
        return Memory(self._finder, user_id, app_name, runtime=self)

    # -- other processes

    def _joinable(self) -> Cluster | None:
        if not isinstance(self._store, Clustered):
            return None
        from tertulia.cluster.cluster import Cluster

        cluster = Cluster(self._store, getattr(self._bus, "connection", None))
        conversations = ref(self._registry)
        cluster.on_lapse(
            lambda lapsed: _stop_turns(conversations()) if lapsed else None, anywhere=True
        )
        return cluster

    # -- clients of swarms

    @property
    def bus(self) -> Bus:
        """Carries what happens to clients to those who listen."""
        return self._bus

    @property
    def clients(self) -> SessionConnectionService:
        """Keeps one live client session for each client and swarm."""
        if self._clients is None:
            self._clients = self._serve(())
        return self._clients

    def swarm(self, name: str) -> Swarm:
        """A swarm of this runtime. Raises UnknownName."""
        return self.clients.swarm(name)

    def client_session(self, client_id: str, swarm: str | Swarm) -> ClientSession:
        """The live session of a client in a swarm: the same one until it is disposed.

        Raises UnknownName for a swarm that is not here, InvalidInput.
        """
        return self.clients.get(client_id, swarm)

    def client_sessions(self) -> list[ClientSession]:
        """The client sessions that live in this process."""
        return [] if self._clients is None else self._clients.live()

    def _serve(self, swarms: Iterable[Swarm]) -> SessionConnectionService:
        from tertulia.swarm.services import SessionConnectionService

        return SessionConnectionService(self, self.bus, swarms)

    # -- sessions

    def session(self, id: str | None = None, **options: Any) -> Session:  # noqa: A002
        """A session of this runtime; takes what `Session` takes, and does no I/O."""
        return Session(id, runtime=self, **options)

    async def get(
        self,
        id: str,  # noqa: A002
        *,
        app_name: str | None = None,
        user_id: str | None = None,
    ) -> Session:
        """A session that exists. Raises SessionNotFound and AccessDenied."""
        session = self.session(id, app_name=app_name, user_id=user_id)
        row = await self.store.find(app_name, id)
        if row is None:
            raise SessionNotFound(f"there is no session {id!r}", session_id=id)
        Conversation(self, app_name, id).check_access(row, Opening(user=user_id))
        return session

    async def sessions(
        self,
        *,
        user_id: str | None = None,
        app_name: str | None = None,
        after: SessionInfo | int = 0,
        limit: int | None = 100,
    ) -> list[SessionInfo]:
        """Sessions in the order of their creation, a page at a time.

        `after` is the last entry of the page before. None as `user_id` or `app_name` means all.
        """
        wanted = check_limit(limit)
        position = after.cursor if isinstance(after, SessionInfo) else after
        if wanted == 0:
            return []
        rows = await self.store.rows(
            app=app_name,
            user=user_id,
            after=position,
            limit=wanted if wanted is not None else 2**31,
            any_app=app_name is None,
        )
        return [info_of(row) for row in rows]

    # -- retention, erasure

    async def sweep(self, *, dry_run: bool = False) -> list[Swept]:
        """Do what retention says is due; with `dry_run` only list it, with its reasons."""
        return await housekeeping.sweep(self, dry_run=dry_run)

    async def erase_user(self, user_id: str) -> Erasure:
        """Remove all sessions and all state of a user, in every app; sessions under a legal
        hold are left and named. The receipt stays in the store's own audit log."""
        return await housekeeping.erase_user(self, user_id)

    async def export_user(self, user_id: str) -> dict[str, Any]:
        """All that is kept about a user, as JSON-able data."""
        return await housekeeping.export_user(self, user_id)

    def stats(self) -> StoreStats:
        """A snapshot of what the store has done."""
        return self.store.stats()

    def backup(self, path: str, progress: Callable[[int, int], None] | None = None) -> None:
        """Copy the store, which may be in use, to a new file; writers do not wait.

        `progress` is told the pages copied and how many there are. Blocks this thread. Raises
        UsageError for a store that is no file, and InvalidInput when the file exists.
        """
        sqlite.maintenance.backup(
            self._file(
                "pg_dump copies a database while it is used, and pg_basebackup a whole server"
            ),
            path,
            progress,
        )

    @staticmethod
    def restore(source: str, target: str) -> maintenance.Restored:
        """Put a backup in the place of a store that nobody uses, and erase again what was erased.

        Raises StoreUnavailable while a process has it open, NotAStore and StoreTooNew.
        """
        return sqlite.maintenance.restore(source, target, SystemClock().now())

    def doctor(self) -> maintenance.Checkup:
        """Examine the store: damage, file system, sizes, the processes that have it open."""
        return sqlite.maintenance.check(
            self._file("use `tertulia doctor --store …` or `tertulia cluster`")
        )

    def _file(self, instead: str) -> str:
        store = self.store
        if isinstance(store, SQLiteStore):
            return store.path
        if self._cluster is not None:
            raise UsageError(f"{store.url} is a database, and no file: {instead}")
        raise UsageError(f"{store.url} is no file; this is for sqlite stores")

    # -- life

    async def flush(self) -> None:
        """Write what `set_state` left to be written, in every session."""
        for conversation in list(self._dirty):
            await conversation.flush()

    async def close(self) -> None:
        """Write what is left, finish what was submitted, and close the store."""
        if os.getpid() != self._pid:
            return
        try:
            await self._end_clients()
            await self.flush()
        finally:
            kept.opened.discard(self)
            kept.forget(self)
            try:
                if self._cluster is not None:
                    await self._cluster.close()
            finally:
                await self._store.close()

    async def _end_clients(self) -> None:
        """Dispose the client sessions, then close the bus."""
        if self._clients is not None:
            await self._clients.close()
        if doors.current_loop() is not None:
            await self._bus.aclose()
        else:
            self._bus.close()

    async def __aenter__(self) -> Self:
        manager = hosts.using(self)
        manager.__enter__()
        self._tokens.append(manager)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._tokens.pop().__exit__(kind, error, trace)
        await self.close()


def as_store(store: str | LogStore | SessionStore | None) -> LogStore:
    """The log store that is meant. Raises ConfigurationError."""
    if store is None:
        return open_store(settings.store())
    if isinstance(store, str):
        return open_store(store)
    if hasattr(store, "commit"):
        return store  # pyright: ignore[reportReturnType]
    if isinstance(store, SessionStore):
        return stores.DocumentStore(store)
    raise InvalidInput(
        f"{store!r} is no store; pass an address like sqlite:///x.db, a store, or a SessionStore"
    )


def bus_of(bus: Bus | str | None, clock: Clock) -> Bus:
    """The bus that is meant. Raises ConfigurationError, and MissingExtra."""
    if bus is None or isinstance(bus, str):
        return open_bus(settings.bus() if bus is None else bus, clock)
    return bus


def slots_of(max_turns: int | None) -> Slots:
    """The places for turns. Raises InvalidInput."""
    if max_turns is None:
        return Slots(sys.maxsize, MAX_WAITING)
    if type(max_turns) is not int or not 1 <= max_turns <= MAX_TURNS:
        raise InvalidInput(f"max_turns is a whole number from 1 to {MAX_TURNS}, not {max_turns!r}")
    return Slots(max_turns, MAX_WAITING)


def _stop_turns(registry: WeakValueDictionary[tuple[Any, ...], Any] | None) -> None:
    """The lease of this worker is about to end: its turns stop before another one takes over.

    On the thread of the store, while others change the registry.
    """
    living = [] if registry is None else [reference() for reference in registry.valuerefs()]
    for each in living:
        turn = each.turn if isinstance(each, Conversation) else None
        if turn is not None:
            turn.request_stop("the database did not answer in time", lost=True)
