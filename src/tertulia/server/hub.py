"""The live sessions of one process: they are made, found again, counted and brought to an end."""

from __future__ import annotations

import asyncio
import inspect
import logging
from typing import Any
from weakref import WeakValueDictionary

import msgspec

from tertulia import host as hosts
from tertulia.errors import AccessDenied
from tertulia.live import link as links
from tertulia.live.checking import checked
from tertulia.live.link import Link
from tertulia.live.nodes import Node
from tertulia.live.session import AgentSession, Settings
from tertulia.runtime import Runtime
from tertulia.session import Session
from tertulia.wire.events import SystemInit

_log = logging.getLogger("tertulia.server")

CHECKING = 10.0
"""Seconds that a setup handler has to call `start` when it is checked."""


class Counts(msgspec.Struct):
    """What happened since the start of the process."""

    connections: int = 0
    sessions: int = 0
    resumed: int = 0
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
        self._opening: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self.connections = 0
        """Connections that are open, also those that have not said who they are."""
        self.counts = Counts()
        self.stopping = False
        self.not_ready: str | None = "it has not started yet"
        """Why the server is not ready, if it is not."""
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
    ) -> AgentSession:
        """The session that a client asks for, which is yet to be attached to its connection; else
        a new one, which has it.

        Raises AccessDenied for one that belongs to somebody else, and what the store raises.
        """
        wanted = init.session_id
        if wanted is None:
            return await self._new(runtime, init, link, user_id)
        lock = self._opening.get(wanted)
        if lock is None:
            lock = self._opening[wanted] = asyncio.Lock()
        async with lock:
            session = self._sessions.get(wanted)
            if session is None or session.ending:
                if session is not None:
                    await session.wait_until_complete()
                return await self._new(runtime, init, link, user_id)
            if session.user_id != user_id:
                raise AccessDenied("the session belongs to somebody else", session_id=wanted)
            self.counts.resumed += 1
            return session

    async def _new(
        self,
        runtime: Runtime,
        init: SystemInit,
        link: Link,
        user_id: str | None,
    ) -> AgentSession:
        conversation = runtime.session(init.session_id, user_id=user_id)
        row = await conversation._row()  # pyright: ignore[reportPrivateUsage]
        if row is not None and user_id is not None and row.user != user_id:
            raise AccessDenied("the session belongs to somebody else", session_id=row.id)
        session = self._kind(
            conversation,
            init,
            settings=self._settings,
            user_id=user_id,
            resumed=row is not None,
        )
        session.on_end = self._ended
        await session.open()
        await session.attach(link, init.after)
        self._sessions[session.session_id] = session
        self.counts.sessions += 1
        with hosts.using(runtime):
            task = asyncio.get_running_loop().create_task(self._run(session))
        self._setups[session.session_id] = task
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
        task = self._setups.pop(session.session_id, None)
        if task is not None and not session.started:
            task.cancel()
        elif task is not None and not task.done():
            self._returning.add(task)
            task.add_done_callback(self._returning.discard)

    # -- the life of the server

    async def check(self) -> None:
        """Run the setup handler once without a client, on a store of its own, and see what it
        builds. Says in `not_ready` what is wrong with it."""
        self.not_ready = await self._checked()
        if self.not_ready is not None:
            _log.error("the setup handler is not ready: %s", self.not_ready)

    async def _checked(self) -> str | None:
        runtime = Runtime("memory:")
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
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        for session in sessions:
            await session.quiet(max(0.0, deadline - loop.time()))
            session.finish("the server shuts down")
        tasks = [*self._setups.values(), *self._returning]
        if tasks:
            _, left = await asyncio.wait(tasks, timeout=10.0)
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
