"""AgentSession: the live half of one conversation: its graph, its hooks and its client."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any
from uuid import uuid4

import msgspec
from msgspec.structs import force_setattr

from tertulia import events as facts
from tertulia.clock import to_iso
from tertulia.errors import AgentError, StoreError, UsageError
from tertulia.graph import Graph
from tertulia.live import link as links
from tertulia.live.answers import Answers
from tertulia.live.context import KEY, Context
from tertulia.live.hooks import Handler, Hooks
from tertulia.live.inlet import Inlet
from tertulia.live.link import Link
from tertulia.live.nodes import Node, current_session
from tertulia.live.replay import Replay
from tertulia.live.scribe import Scribe
from tertulia.live.sink import Sink
from tertulia.session import Session
from tertulia.wire.events import (
    AgentErrorEvent,
    AgentReady,
    AgentSpeak,
    LiveEvent,
    LLMRequest,
    ResponseChunk,
    ResponseEnd,
    ResponseStart,
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
    finish_in: float = 20.0
    """Seconds that turns have to finish when the server shuts down."""


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
        self.handed_off = False
        """Whether the call was ended or transferred: no more answers are given."""
        self.reason: str | None = None
        """Why the session is complete, once it is."""
        self._checking = checking
        self._hooks = Hooks(self)
        self._nodes: tuple[Node, ...] = ()
        self._link: Link | None = None
        self._complete = asyncio.Event()
        self._started = False
        self._stopped = False
        self._stopping: asyncio.Task[None] | None = None
        self._last_words: asyncio.Task[None] | None = None
        self._saving: asyncio.Task[None] | None = None
        self._leaving: asyncio.TimerHandle | None = None
        self._clock = conversation._host.clock  # pyright: ignore[reportPrivateUsage]
        self._second = (-1, "")
        self._after: int | None = None
        self._ids = f"{uuid4().hex[:12]}-"
        self._count = 0

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
            raise SetupChecked(_drawn(self.graph))
        self.sink.link(joins=plan.sink_is_join)
        leaves = {id(leaf) for leaf in plan.leaves}
        for link in plan.links:
            children = (self.sink,) if id(link.node) in leaves else link.children
            link.node.link(self, children, link.parents, joins=link.is_join)
        self._nodes = plan.order
        self.inlet.link(plan.roots)
        self._started = True
        self._context_changed()
        await self._ready()
        for node in self._nodes:
            node.run()
            await node.start()
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
        """Say a text to the client; it becomes a message of the conversation."""
        await self.send_event(AgentSpeak(text=text))

    async def send_event(self, event: LiveEvent) -> None:
        """Send an event to the client, as if the last node had sent it."""
        if not isinstance(event, LiveEvent):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise UsageError(f"{event!r} is no event; pass AgentSpeak(text=…) or one of your own")
        await self.sink.queue_event(event)

    async def report(
        self, message: str, severity: Severity = "warning", payload: dict[str, Any] | None = None
    ) -> None:
        """Tell the client, the hooks and the log of an error that the session survives."""
        told = AgentErrorEvent(
            message=message[:1_000],
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
        return self._link is not None and self._link.closed is None

    @property
    def echo(self) -> bool:
        """Whether the client's own events go back to it."""
        return self.settings.echo

    # -- the connection

    async def open(self) -> None:
        """Note the connection in the log, and take back what was kept, before setup runs."""
        if self.resumed:
            self.context.restore(self.conversation.get_state(KEY))
            for event_id, kept in await self.scribe.recover():
                self.inlet.remember(event_id, kept=kept)
            if self.scribe.context is not None:
                self.context.restore(self.scribe.context)
        await self.scribe.note(facts.LIVE_CONNECTED, self._connection())

    async def receive(self, event: LiveEvent) -> None:
        """Take an event of the client. An interruption overtakes all that waits."""
        self.stamp(event, "in")
        if isinstance(event, UserInterrupt):
            self._interrupt(event)
        else:
            await self.inlet.put(event)

    async def attach(self, link: Link, after: int | None = None, *, again: bool = False) -> None:
        """Let a connection be the client's: first what it missed, then the live stream."""
        link.replaying = True
        link.delivers = self.answers.delivered
        old, self._link = self._link, link
        if old is not None:
            old.close(links.REPLACED, "a newer connection took over")
        if self._leaving is not None:
            self._leaving.cancel()
            self._leaving = None
        if again:
            await self.scribe.note(facts.LIVE_CONNECTED, self._connection())
        if self._started:
            await self._catch_up(link, after, again=True)
        else:
            self._after = after

    def detach(self, link: Link, reason: str, *, for_good: bool) -> None:
        """The connection is gone; unless for good, the session waits for its client."""
        if self._link is not link:
            return
        self._link = None
        if for_good or self.complete:
            self.finish(reason)
            return
        self._note_soon(reason)
        loop = asyncio.get_running_loop()
        self._leaving = loop.call_later(
            self.settings.resume_for, self.finish, "the client did not come back"
        )

    def finish(self, reason: str) -> None:
        """The session is at its end: stop it, and let `wait_until_complete` return."""
        if self._stopping is None:
            self.reason = self.reason or reason
            self._stopping = asyncio.get_running_loop().create_task(self.stop())

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
        _log.error("live session %s failed", self.session_id, exc_info=error)
        if self._link is not None:
            self._link.close(links.FAILED, "the session cannot be kept: come back later")
        self.finish(f"failed: {type(error).__name__}")

    def refuse(self, message: str) -> None:
        """The session cannot be: tell the client why, and end it."""
        if self._link is not None:
            told = AgentErrorEvent(
                message=message[:1_000], severity="fatal", payload={"code": "setup_failed"}
            )
            self.stamp(told, "out")
            self._link.replaying = False
            self._link.push(told)
        self.close_link(links.FAILED, "the session could not be set up")
        self.finish("the setup handler failed")

    def close_link(self, code: int, reason: str) -> None:
        """Close the connection, if there is one; the session itself goes on."""
        if self._link is not None:
            self._link.close(code, reason)

    async def quiet(self, seconds: float) -> None:
        """Wait, for so many seconds at most, until no answer is being given."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while self.answers.running and not self.complete and loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.02)

    async def stop(self) -> None:
        """Stop the nodes and hooks, and close the connection. Nothing is left running."""
        if self._stopped:
            return
        self._stopped = True
        self.reason = self.reason or "stopped"
        if self._leaving is not None:
            self._leaving.cancel()
        self.inlet.close()
        for node in self._nodes:
            await self._stop_node(node)
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.sink.idle(), 5.0)
        await self._hooks.close()
        self.sink.stop()
        await self._close_log()
        link, self._link = self._link, None
        if link is not None:
            link.close(links.NORMAL, self.reason[:100])
        self._complete.set()

    # -- what the parts of the session need

    def stamp(self, event: LiveEvent, direction: str) -> None:
        """Fill in what an event says of itself."""
        if event.seq is not None and direction == "in":
            force_setattr(event, "seq", None)
        force_setattr(event, "direction", direction)
        force_setattr(event, "session_id", self.session_id)
        if event.id is None:
            self._count += 1
            force_setattr(event, "id", f"{self._ids}{self._count}")
        if event.timestamp is None:
            force_setattr(event, "timestamp", self._timestamp())

    def client_gets(self, event: LiveEvent) -> None:
        """Send an event to the client, if it is there."""
        if self._link is not None:
            self._link.offer(event)

    def hooks_get(self, event: LiveEvent) -> None:
        """Hand an event to the hooks."""
        if not self._hooks:
            return
        for name in self._hooks.notify(event):
            _log.warning("the hook %r takes too long; events for it are dropped", name)

    def cut(self, request_id: str, heard: str | None = None) -> None:
        """No more text of an answer goes to the client, not even what waits for it already.

        Where the answer was given whole, the history keeps what the client got of it.
        """
        late = self.answers.late(request_id)
        if late is None:
            self.sink.cut(request_id)
        if self._link is not None:
            self._link.cut({request_id})
        if late is not None and heard is None:
            self.answers.forget(request_id)
            self.inlet.heard(late.text[late.settled : late.delivered])

    def not_answered(self, request: LLMRequest) -> None:
        """A request for an answer came to nothing: for the client its answer begins and ends."""
        request_id = request.id
        for told in (
            ResponseStart(request_id=request_id),
            ResponseEnd(request_id=request_id, interrupted=True),
        ):
            if not self.sink.offer(told):
                self._later(self.sink.queue_event(told))

    # -- inside

    def _timestamp(self) -> str:
        """The time as text, to the millisecond."""
        seconds, micros = divmod(self._clock.now(), 1_000_000)
        if seconds != self._second[0]:
            self._second = seconds, to_iso(seconds * 1_000_000)[:19]
        return f"{self._second[1]}.{micros // 1_000:03d}Z"

    def _connection(self) -> dict[str, Any]:
        begun = self.init.session_context
        kind = "chat" if begun is None else begun.conversation_type
        return {"kind": kind, "user": self.user_id}

    def _interrupt(self, event: UserInterrupt) -> None:
        """Stop what is being generated, in the order of the graph, and let everybody know."""
        self.hooks_get(event)
        for node in self._nodes:
            node.interrupt(event)
        if any(node.is_interruptible for node in self._nodes):
            for request in self.inlet.pull_requests():
                self.not_answered(request)
        if event.heard is not None and all(each.heard is None for each in self.answers.running):
            self.inlet.heard(event.heard)

    async def _ready(self) -> None:
        link = self._link
        if link is None:
            return
        await self._catch_up(link, self._after, again=self.resumed)

    async def _catch_up(self, link: Link, after: int | None, *, again: bool) -> None:
        """Say `agent.ready`, give what was missed, and go live without a gap or a repetition."""
        link.replaying = True
        head = await self._head()
        behind = after is not None and after > head
        start = 0 if behind else head if after is None else after
        ready = AgentReady(
            seq=start,
            resume_for=self.settings.resume_for,
            resumed=again,
            received=self.inlet.newest,
        )
        self.stamp(ready, "out")
        link.push(ready)
        self.hooks_get(ready)
        if behind:
            said = f"the log ends at {head}, before {after}: it was created anew, or restored"
            link.push(AgentErrorEvent(message=said, payload={"code": "cursor_expired"}))
        replay = Replay(self.conversation, start)
        while link.closed is None:
            missed = await replay.page() if after is not None else []
            for event in missed:
                await link.room()
                link.push(event)
            if after is None or (not missed and link.passed <= replay.position):
                break
        self._go_live(link, replay)

    def _go_live(self, link: Link, replay: Replay) -> None:
        """From here on without waiting: the text so far, then what comes."""
        running = [
            answer for answer in self.answers.running if answer.request_id not in replay.given
        ]
        for answer in running:
            start = ResponseStart(request_id=answer.request_id, resumed=True)
            self.stamp(start, "out")
            link.push(start)
            if answer.text:
                chunk = ResponseChunk(text=answer.text, request_id=answer.request_id, offset=0)
                self.stamp(chunk, "out")
                link.push(chunk)
        link.live(replay.position, replay.given)

    async def _head(self) -> int:
        row = await self.conversation._row()  # pyright: ignore[reportPrivateUsage]
        return 0 if row is None else row.seq

    # -- the context

    def _context_changed(self) -> None:
        if self._saving is None and self._started and not self._stopped:
            self._saving = asyncio.get_running_loop().create_task(self._save_context())

    async def _save_context(self) -> None:
        try:
            await asyncio.sleep(0)  # what is set in one go is kept in one go
            self._saving = None
            news = self.context.news()
            if news is not None:
                await self.scribe.keep_context(KEY, news)
        except StoreError as error:
            self.fail(error)
        except AgentError as error:
            _log.error("the context of %s is not kept", self.session_id, exc_info=error)

    # -- the end

    async def _stop_node(self, node: Node) -> None:
        """Stop one node; what goes wrong there does not keep the others running."""
        try:
            await asyncio.wait_for(node.finish(), 5.0)
        except Exception as error:
            _log.error("%s.stop failed", node.name, exc_info=error)

    async def _close_log(self) -> None:
        try:
            await self._save_context()
            await self.scribe.close()
            await self.scribe.note(facts.LIVE_DISCONNECTED, {"reason": self.reason, "final": True})
        except AgentError as error:
            _log.error("the end of %s is not in its log", self.session_id, exc_info=error)

    def _note_soon(self, reason: str) -> None:
        body = {"reason": reason, "final": False}
        self._later(self.scribe.note(facts.LIVE_DISCONNECTED, body))
        self._later(self._save_context())

    def _later(self, work: Coroutine[Any, Any, Any]) -> None:
        async def run() -> None:
            try:
                await work
            except AgentError as error:
                _log.error("the log of %s was not written", self.session_id, exc_info=error)

        task = asyncio.get_running_loop().create_task(run())
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)


class SetupChecked(BaseException):
    """Raised by `start` where a setup handler is only checked; no handler should catch it."""

    def __init__(self, graph: dict[str, Any]) -> None:
        super().__init__("the setup handler was checked")
        self.graph = graph


def _drawn(graph: Graph[Node]) -> dict[str, Any]:
    """A graph as JSON."""
    places = {id(node): number for number, node in enumerate(graph.nodes)}
    return {
        "nodes": [{"name": node.name, "kind": type(node).__name__} for node in graph.nodes],
        "edges": [[places[id(parent)], places[id(child)]] for parent, child in graph.edges],
        "mermaid": graph.to_mermaid(),
    }


_tasks: set[asyncio.Task[None]] = set()
"""What is still being written for connections that are gone."""
