"""AgentSession: the live half of one conversation: its graph, its hooks and its client."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import msgspec

from tertulia import events as facts
from tertulia.errors import AgentError, SessionEnded, SessionNotFound, StoreError, UsageError
from tertulia.graph import Graph
from tertulia.live import link as links
from tertulia.live.answers import Answers
from tertulia.live.checking import SetupChecked
from tertulia.live.context import Context
from tertulia.live.hooks import Handler, Hooks
from tertulia.live.inlet import Inlet
from tertulia.live.interrupts import interrupt
from tertulia.live.link import Link
from tertulia.live.losing import lost_by
from tertulia.live.nodes import Node, being_cancelled, current_session
from tertulia.live.presence import Presence
from tertulia.live.scribe import CONTEXT_KEY, Scribe
from tertulia.live.sink import Sink
from tertulia.live.stamps import Stamps
from tertulia.session import Session
from tertulia.values import storable
from tertulia.wire.events import (
    AgentErrorEvent,
    AgentSpeak,
    LiveEvent,
    SessionContext,
    Severity,
    SystemInit,
    UserInterrupt,
)

Setup = Callable[["AgentSession"], Awaitable[None]]
LAST_WORDS = 20.0
"""Seconds that an answer has to end when it has ended the call."""
_log = logging.getLogger("tertulia.live")


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How live sessions behave."""

    resume_for: float = 30.0
    """Seconds that a session waits for a client that was lost."""
    echo: bool = False
    """Whether events of the client that come through the graph go back to it."""
    show_errors: bool = True
    """Whether a client is told the texts of exceptions; they are in the server's log anyway."""


class AgentSession:
    """One user's live session: build its graph, register hooks, `start` it.

    The server makes it when a client connects, and calls the setup handler with it. It outlives
    the connection: a client that is lost can come back to it. All that matters is in the log of
    `conversation`, the durable session of the same id.
    """

    def __init__(
        self,
        conversation: Session,
        init: SystemInit | None = None,
        *,
        settings: Settings | None = None,
        user_id: str | None = None,
        resumed: bool = False,
        checking: bool = False,
    ) -> None:
        self.conversation = conversation
        """The durable session: history, state, audit."""
        self.session_id = conversation.id
        self.name = f"Session-{conversation.id}"
        self.user_id = user_id
        """Who is connected, as authentication says; None without it."""
        self.resumed = resumed
        """Whether the conversation goes on after a restart of the server."""
        self.settings = settings or Settings()
        self.init = init or SystemInit()
        """The client's first frame."""
        self.graph: Graph[Node] = Graph()
        self.context = Context(self._context_changed)
        self.answers = Answers()
        self.scribe = Scribe(conversation)
        self.sink = Sink(self)
        self.inlet = Inlet(self)
        self.presence = Presence(self)
        self.greeting: str | None = None
        """What is said to the user who joins a conversation that is new."""
        self.handed_off = False
        """Whether the call was ended or transferred: no more answers are given."""
        self.on_end: Callable[[AgentSession], None] | None = None
        """Called once the session has come to its end."""
        self.reason: str | None = None
        """Why the session is complete, once it is."""
        self.lost = False
        """Whether another worker may go on with it: nothing is written here any more."""
        self._checking = checking
        self._hooks = Hooks(self)
        self.plan: tuple[Node, ...] = ()
        """The nodes in the order in which events pass them, once the session has started."""
        self._complete = asyncio.Event()
        self._started = False
        self._stopped = False
        self._stopping: asyncio.Task[None] | None = None
        self._last_words: asyncio.Task[None] | None = None
        self._saving: asyncio.Task[None] | None = None
        self._stamps = Stamps(conversation.id, conversation._host.clock)  # pyright: ignore[reportPrivateUsage]

    @classmethod
    def current(cls) -> AgentSession:
        """The session whose node runs the calling code, as a tool of its agent does.

        Raises UsageError outside of one.
        """
        found = current_session.get()
        if found is None:
            raise UsageError("this code is not run by a node of a live session")
        return found

    # -- the graph

    def add_node(self, node: Node) -> None:
        """Add a node. Raises GraphError for one that is in the graph, or when it is locked."""
        self.graph.add_node(node)

    def add_edge(self, parent: Node, child: Node) -> None:
        """Let the events of a node go to another. Raises GraphError when the graph is locked."""
        self.graph.add_edge(parent, child)

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The nodes, in the order they were added."""
        return self.graph.nodes

    async def start(self) -> None:
        """Lock and check the graph, tell the client `agent.ready`, and start the nodes.

        Raises GraphCycleError (a ValueError) that names the path of a cycle, GraphError for other
        graphs that cannot be, and what the `start` of a node raises.
        """
        plan = self.graph.lock()
        if self._checking:
            raise SetupChecked(self.graph)
        self.sink.link(joins=plan.sink_is_join)
        leaves = {id(leaf) for leaf in plan.leaves}
        for link in plan.links:
            children = (self.sink,) if id(link.node) in leaves else link.children
            link.node.link(self, children, link.parents, joins=link.is_join)
        self.plan = plan.order
        self.inlet.link(plan.roots)
        self._started = True
        self._context_changed()
        await self.presence.ready()
        for node in self.plan:
            await node.start()
            node.run()
        self.inlet.open()
        self.scribe.settle_later()

    async def wait_until_complete(self) -> None:
        """Wait for the end: the client left for good, the call was ended, or a fatal error.

        The nodes have stopped then, and what was said is in the log.
        """
        await self._complete.wait()
        if self._stopping is not None and self._stopping is not asyncio.current_task():
            await asyncio.shield(self._stopping)

    @property
    def started(self) -> bool:
        """Whether `start` was called."""
        return self._started

    @property
    def ending(self) -> bool:
        """Whether it is being stopped."""
        return self._stopping is not None or self._stopped

    @property
    def complete(self) -> bool:
        """Whether the session has come to its end."""
        return self._complete.is_set()

    # -- hooks

    def on_event(self, name: str) -> Callable[[Handler], Handler]:
        """Register the decorated ``(session, event)`` function for events of a name.

        The name is a type of events (``"agent.speak"``), a group (``"agent.*"``), ``"*"``, or
        ``"on_event_received"`` for all that come from the client. Raises InvalidInput.
        """
        return self._hooks.on(name)

    def add_event_handler(self, name: str, fn: Handler) -> None:
        """As `on_event`, for a function that is there already."""
        self._hooks.add(name, fn)

    # -- what nodes, hooks and setup can do

    async def speak(self, text: str) -> None:
        """Say a text to the client; it becomes a message of the conversation, and is durable when
        this returns."""
        await self.send_event(AgentSpeak(text=text))

    async def send_event(self, event: LiveEvent) -> None:
        """Send an event to the client, as if the last node had sent it.

        One that is kept is durable when this returns. Raises UsageError.
        """
        if not isinstance(event, LiveEvent):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise UsageError(f"{event!r} is no event; pass AgentSpeak(text=…) or one of your own")
        await self.sink.queue_event(event)
        if event.kept:
            await self.sink.idle()

    async def flush(self) -> None:
        """Return once all that was sent, and the context as it is now, is durable."""
        await self.sink.idle()
        await self._save_context()

    async def report(
        self, message: str, severity: Severity = "warning", payload: dict[str, Any] | None = None
    ) -> None:
        """Tell the client, the hooks and the log of an error that the session survives."""
        told = AgentErrorEvent(
            message=storable(message[:1_000]),
            severity=severity,
            payload=payload or {},
            metadata={"recovered": True},
        )
        await self.send_event(told)

    @property
    def session_context(self) -> SessionContext | None:
        """What the client began with."""
        return self.init.session_context

    @property
    def initial_variables(self) -> dict[str, Any]:
        """A copy of the variables that the client began with."""
        begun = self.init.session_context
        return {} if begun is None else dict(begun.initial_variables)

    @property
    def caller(self) -> dict[str, Any] | None:
        """Who calls, where the client says so."""
        return None if self.init.session_context is None else self.init.session_context.caller

    @property
    def connected(self) -> bool:
        """Whether a client is there now."""
        return self.presence.here

    @property
    def echo(self) -> bool:
        """Whether the client's own events go back to it."""
        return self.settings.echo

    # -- the connection

    async def open(self) -> None:
        """Note the connection in the log, and take back what was kept, before setup runs."""
        if self.resumed:
            self.context.restore(self.conversation.get_state(CONTEXT_KEY))
            for event_id, kept in await self.scribe.recover():
                self.inlet.remember(event_id, kept=kept)
            if self.scribe.context is not None:
                self.context.restore(self.scribe.context)
        await self.scribe.note(facts.LIVE_CONNECTED, self.presence.note())

    async def receive(self, event: LiveEvent) -> None:
        """Take an event of the client. An interruption overtakes all that waits."""
        self._stamps.put(event, "in")
        if isinstance(event, UserInterrupt):
            if not self.inlet.taken_before(event):
                interrupt(self, event)
        elif not self.inlet.offer(event):
            await self.inlet.put(event)

    async def attach(self, link: Link, after: int | None = None, *, again: bool = False) -> None:
        """Let a connection be the client's: first what it missed, then the live stream."""
        await self.presence.attach(link, after, again=again)

    def detach(
        self, link: Link, reason: str, *, for_good: bool, seconds: float | None = None
    ) -> None:
        """The connection is gone; unless for good, the session waits for its client: for
        `seconds`, or as its settings say."""
        self.presence.detach(link, reason, for_good=for_good, seconds=seconds)

    def finish(self, reason: str) -> None:
        """The session is at its end: stop it, and let `wait_until_complete` return."""
        if self._stopping is None:
            self.reason = self.reason or reason
            self._stopping = asyncio.get_running_loop().create_task(self._end())

    def finish_soon(self, reason: str) -> None:
        """As `finish`, once what is being said is said."""
        if self._last_words is None and self._stopping is None:
            self._last_words = asyncio.get_running_loop().create_task(self._finish_quietly(reason))

    async def _finish_quietly(self, reason: str) -> None:
        if self.connected:
            await self.quiet(LAST_WORDS)
        self.finish(reason)

    def fail(self, error: BaseException) -> None:
        """The log cannot be written: nothing that comes could be kept."""
        if lost_by(self, error):
            return
        _log.error("live session %s failed", self.session_id, exc_info=error)
        self.close_link(links.FAILED, "the session cannot be kept: come back later")
        self.finish(f"failed: {type(error).__name__}")

    def refuse(self, message: str) -> None:
        """The session cannot be: tell the client why, and end it."""
        if self.presence.link is not None:
            told = AgentErrorEvent(
                message=message[:1_000], severity="fatal", payload={"code": "setup_failed"}
            )
            self.stamp(told, "out")
            self.presence.link.replaying = False
            self.presence.link.push(told)
        self.close_link(links.FAILED, "the session could not be set up")
        self.finish("the setup handler failed")

    def close_link(self, code: int, reason: str) -> None:
        """Close the connection, if there is one; the session itself goes on."""
        self.presence.close(code, reason)

    async def quiet(self, seconds: float) -> None:
        """Wait, for so many seconds at most, until no answer is being given."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while self.answers.running and not self.complete and loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.02)

    async def stop(self) -> None:
        """Stop the nodes and hooks, and close the connection. Nothing is left running then.

        Called by a node or hook of the session, it does not wait for that.
        """
        self.finish("stopped")
        if current_session.get() is not self:
            await self.wait_until_complete()

    async def _end(self) -> None:
        self._stopped = True
        self.presence.stay()
        self.inlet.close()
        try:
            for node in self.plan:
                await self._stop_node(node)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.sink.idle(), 5.0)
            await self._hooks.close()
            self.sink.stop()
            if not self.lost:
                await self._close_log()
        finally:
            self.presence.close(links.NORMAL, (self.reason or "")[:100])
            self.presence.link = None
            self._complete.set()
            if self.on_end is not None:
                self.on_end(self)

    # -- what the parts of the session need

    def stamp(self, event: LiveEvent, direction: str) -> None:
        """Fill in what an event says of itself."""
        self._stamps.put(event, direction)

    def told(self, error: BaseException) -> str:
        """What a client is told of an exception, beside its kind."""
        shown = self.settings.show_errors or isinstance(error, AgentError)
        return f": {error}" if shown else ""

    def client_gets(self, event: LiveEvent) -> None:
        """Send an event to the client, if it is there."""
        self.presence.offer(event)

    def hooks_get(self, event: LiveEvent) -> None:
        """Hand an event to the hooks."""
        if self._hooks.none:
            return
        for name in self._hooks.notify(event):
            _log.warning("the hook %r takes too long; events for it are dropped", name)

    async def greet(self) -> None:
        """Say the greeting, if nothing was said yet."""
        if self.greeting is not None and not await self.conversation.history(limit=1):
            await self.speak(self.greeting)

    def note_soon(self, kind: str, body: dict[str, Any]) -> None:
        """Log a fact, and what the context is now, without waiting for it."""
        if self.lost:
            return
        self._later(self.scribe.note(kind, body))
        self._later(self._save_context())

    def send_soon(self, event: LiveEvent) -> None:
        """Send an event to the client without waiting for a place."""
        if not self.sink.offer(event):
            self._later(self.sink.queue_event(event))

    # -- inside

    async def head(self) -> int:
        """Where the log ends."""
        row = await self.conversation._row()  # pyright: ignore[reportPrivateUsage]
        return 0 if row is None else row.seq

    # -- the context

    def _context_changed(self) -> None:
        if self._saving is None and self._started and not self._stopped:
            self._saving = asyncio.get_running_loop().create_task(self._save_context())

    async def _save_context(self) -> None:
        try:
            await asyncio.sleep(0)  # what is set in one go is kept in one go
            while (news := self.context.news()) is not None:
                await self.scribe.keep_context(news)
        except StoreError as error:
            self.fail(error)
        except AgentError as error:
            if self.lost:
                return
            _log.error("the context of %s is not kept", self.session_id, exc_info=error)
        finally:
            self._saving = None

    # -- the end

    async def _stop_node(self, node: Node) -> None:
        """Stop one node; what goes wrong there does not keep the others running."""
        try:
            await asyncio.wait_for(node.finish(), 5.0)
        except (Exception, asyncio.CancelledError) as error:
            if being_cancelled():
                raise
            _log.error("%s.stop failed", node.name, exc_info=error)

    async def _close_log(self) -> None:
        try:
            await self._save_context()
            await self.scribe.close()
            await self.scribe.note(facts.LIVE_DISCONNECTED, {"reason": self.reason, "final": True})
        except (SessionEnded, SessionNotFound):
            pass  # it was ended or deleted, which is why it comes to its end here
        except AgentError as error:
            _log.error("the end of %s is not in its log", self.session_id, exc_info=error)

    def _later(self, work: Coroutine[Any, Any, Any]) -> None:
        async def run() -> None:
            try:
                await work
            except AgentError as error:
                if not self.lost:
                    _log.error("the log of %s was not written", self.session_id, exc_info=error)

        task = asyncio.get_running_loop().create_task(run())
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)


_tasks: set[asyncio.Task[None]] = set()
"""What is still being written for connections that are gone."""
