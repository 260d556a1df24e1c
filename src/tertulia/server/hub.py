"""The live sessions of one process: they are made, found again, counted and brought to an end."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Collection
from typing import Any
from weakref import WeakValueDictionary

import msgspec

from tertulia import host as hosts
from tertulia.errors import AccessDenied, StoreError
from tertulia.live import link as links
from tertulia.live.checking import checked
from tertulia.live.link import Link
from tertulia.live.losing import lose
from tertulia.live.nodes import Node
from tertulia.live.session import AgentSession, Settings
from tertulia.runtime import Runtime
from tertulia.server.seats import leave_seat, take_seat
from tertulia.session import Session
from tertulia.wire.events import SystemInit

_log = logging.getLogger("tertulia.server")

_LAPSED = "the lease of this worker has run out"
CHECKING = 10.0
"""Seconds that a setup handler has to call `start` when it is checked."""


class Counts(msgspec.Struct):
    """What happened since the start of the process."""

    connections: int = 0
    sessions: int = 0
    resumed: int = 0
    carried: int = 0
    refused: int = 0
    bad_frames: int = 0
    too_slow: int = 0
    failed_setups: int = 0


class Hub:
    """Holds the live sessions; each has a task that runs the setup handler."""

    def __init__(
        self, setup: Any, settings: Settings, kind: type[AgentSession] = AgentSession
    ) -> None:
        self._kind = kind
        self._setup = setup
        self._settings = settings
        self._sessions: dict[str, AgentSession] = {}
        self._setups: dict[str, asyncio.Task[None]] = {}
        self._returning: set[asyncio.Task[None]] = set()
        """Setup handlers whose sessions have ended, and that do something after that."""
        self._leaving: set[asyncio.Task[None]] = set()
        """What gives seats back."""
        self._opening: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self.connections = 0
        """Connections that are open, also those that have not said who they are."""
        self.counts = Counts()
        self.stopping = False
        self.lapsed = False
        """Whether the lease of this worker has run out: others may have its sessions."""
        self.not_ready: str | None = "it has not started yet"
        """Why the server is not ready, if it is not."""
        self.without_store = False
        """Whether the store, which others use too, has not answered yet."""
        self.graph: dict[str, Any] = {"nodes": [], "edges": []}
        """The graph that the setup handler builds."""
        self.nodes: tuple[Node, ...] = ()
        """The nodes that it made when it was checked; they never start."""

    def show_errors(self, shown: bool) -> None:
        """Whether clients are told the texts of exceptions."""
        self._settings = msgspec.structs.replace(self._settings, show_errors=shown)

    @property
    def active(self) -> int:
        """How many sessions have a client now."""
        return sum(session.connected for session in self._sessions.values())

    @property
    def held(self) -> int:
        """How many sessions live, those that wait for their client included."""
        return len(self._sessions)

    def find(self, session_id: str) -> AgentSession | None:
        """A session that lives in this process."""
        return self._sessions.get(session_id)

    def deleted(self, conversation: Session) -> None:
        """A conversation is gone: so is its live session, if it has one here."""
        session = self._sessions.get(conversation.id)
        if session is not None and session.conversation.app_name == conversation.app_name:
            session.finish("the session was deleted")

    # -- connections

    async def enter(
        self,
        runtime: Runtime,
        init: SystemInit,
        link: Link,
        *,
        user_id: str | None = None,
        by_force: bool = False,
    ) -> AgentSession:
        """The session that a client asks for, which is yet to be attached to its connection; else
        a new one, which has it; `by_force` also where it lives at another worker.

        Raises AccessDenied for one that belongs to somebody else, Elsewhere, and what the store
        raises.
        """
        conversation = runtime.session(init.session_id, user_id=user_id)
        wanted = conversation.id
        async with self._lock(wanted):
            session = self._sessions.get(wanted)
            if session is None or session.ending:
                if session is not None:
                    await session.wait_until_complete()
                resumed = await _known(conversation, user_id)
                await take_seat(conversation, by_force=by_force)
                return await self._new(conversation, init, link, user_id, resumed=resumed)
            if session.user_id != user_id:
                raise AccessDenied("the session belongs to somebody else", session_id=wanted)
            self.counts.resumed += 1
            return session

    def _lock(self, session_id: str) -> asyncio.Lock:
        """Who has it opens or leaves the session with an id."""
        lock = self._opening.get(session_id)
        if lock is None:
            lock = self._opening[session_id] = asyncio.Lock()
        return lock

    async def _new(
        self,
        conversation: Session,
        init: SystemInit,
        link: Link,
        user_id: str | None,
        *,
        resumed: bool,
    ) -> AgentSession:
        """A new session on a conversation whose seat is ours."""
        session = self._kind(
            conversation, init, settings=self._settings, user_id=user_id, resumed=resumed
        )
        session.on_end = self._ended
        try:
            await session.open()
            await session.attach(link, init.after)
        except BaseException:
            self._leave_soon(conversation)
            raise
        self._sessions[session.session_id] = session
        self.counts.sessions += 1
        with hosts.using(conversation._host):  # pyright: ignore[reportPrivateUsage]
            task = asyncio.get_running_loop().create_task(self._run(session))
        self._setups[session.session_id] = task
        if self.lapsed:
            lose(session, _LAPSED)
        return session

    async def _run(self, session: AgentSession) -> None:
        """Run the setup handler; the session lives on where it returns early."""
        try:
            await _called(self._setup, session)
            if not session.started:
                raise RuntimeError("the setup handler returned without `await session.start()`")
            await session.wait_until_complete()
        except Exception as error:
            self.counts.failed_setups += 1
            _log.error("the setup handler failed", exc_info=error)
            session.refuse(f"{type(error).__name__} in the setup handler{session.told(error)}")
        finally:
            session.finish("the setup handler has returned")
            await asyncio.shield(session.wait_until_complete())

    def _ended(self, session: AgentSession) -> None:
        """A session has come to its end; its setup handler may still have something to do."""
        if self._sessions.get(session.session_id) is session:
            del self._sessions[session.session_id]
            self._leave_soon(session.conversation)
        task = self._setups.pop(session.session_id, None)
        if task is not None and not session.started:
            task.cancel()
        elif task is not None and not task.done():
            self._returning.add(task)
            task.add_done_callback(self._returning.discard)

    def _leave_soon(self, conversation: Session) -> None:
        """Give a seat back, unless a session takes it meanwhile."""
        if conversation._host.cluster is None:  # pyright: ignore[reportPrivateUsage]
            return

        async def leave() -> None:
            async with self._lock(conversation.id):
                if conversation.id in self._sessions:
                    return
                try:
                    await leave_seat(conversation)
                except StoreError as error:
                    _log.warning("the seat of %s is not free yet: %s", conversation.id, error)

        task = asyncio.get_running_loop().create_task(leave())
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    # -- the life of the server

    def lapse(self, lapsed: bool) -> None:
        """The lease of this worker runs out, or was renewed after that: no session stays here
        that another worker may take over."""
        self.lapsed = lapsed
        if lapsed:
            _log.warning("%s: %d live sessions end here", _LAPSED, len(self._sessions))
            for session in list(self._sessions.values()):
                lose(session, _LAPSED)

    async def check(self) -> None:
        """Run the setup handler once without a client, on a store of its own, and see what it
        builds. Says in `not_ready` what is wrong with it."""
        self.not_ready = await self._checked()
        if self.not_ready is not None:
            _log.error("the setup handler is not ready: %s", self.not_ready)

    async def _checked(self) -> str | None:
        runtime = Runtime("memory:", bus="local:")
        try:
            with hosts.using(runtime):
                session = self._kind(runtime.session("startup-validation"), checking=True)
                await asyncio.wait_for(_called(self._setup, session), CHECKING)
            return "the setup handler returned without `await session.start()`"
        except TimeoutError:
            return f"the setup handler did not call start() within {CHECKING:.0f} s"
        except BaseException as error:
            done = checked(error)
            if done is not None:
                self.graph, self.nodes = done.graph, done.nodes
                return None
            if not isinstance(error, Exception):
                raise
            _log.error("the setup handler failed", exc_info=error)
            return f"{type(error).__name__}: {error}"
        finally:
            await runtime.close()

    async def shut_down(self, seconds: float) -> None:
        """Let what is being answered finish for a while, then end every session."""
        self.stopping = True
        sessions = list(self._sessions.values())
        for session in sessions:
            session.close_link(links.RESTARTING, "the server restarts: come back")
        await asyncio.gather(*(_finished(session, seconds) for session in sessions))
        await _ended_within([*self._setups.values(), *self._returning], 10.0)
        await _ended_within(self._leaving, 5.0)


async def _known(conversation: Session, user_id: str | None) -> bool:
    """Whether a conversation exists already. Raises AccessDenied for that of somebody else."""
    row = await conversation._row()  # pyright: ignore[reportPrivateUsage]
    if row is not None and user_id is not None and row.user != user_id:
        raise AccessDenied("the session belongs to somebody else", session_id=row.id)
    return row is not None


async def _finished(session: AgentSession, seconds: float) -> None:
    """End a session, once it is quiet or after so many seconds."""
    await session.quiet(seconds)
    session.finish("the server shuts down")


async def _ended_within(tasks: Collection[asyncio.Task[None]], seconds: float) -> None:
    """Wait for tasks; those that are not done after so many seconds are cancelled."""
    if tasks:
        _, left = await asyncio.wait(tasks, timeout=seconds)
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=5.0)


async def _called(setup: Any, session: AgentSession) -> None:
    """Call a setup handler, which may be synchronous only by mistake."""
    made = setup(session)
    if not inspect.isawaitable(made):
        raise TypeError("the setup handler is no `async def`: it has to await session.start()")
    await made
