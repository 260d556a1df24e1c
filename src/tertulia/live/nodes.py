"""Nodes of the event graph of a live session."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol
from weakref import ref

from tertulia.errors import UsageError
from tertulia.live.inbox import SIZE, Inbox, Overflow
from tertulia.live.losing import lost_by
from tertulia.wire.events import LiveEvent, LLMRequest, Severity, UserInterrupt

if TYPE_CHECKING:
    from tertulia.live.session import AgentSession

current_session: ContextVar[AgentSession | None] = ContextVar("tertulia_live", default=None)
"""The live session whose node runs the code."""

_log = logging.getLogger("tertulia.live")


class Seen:
    """Events that came to a place, for as long as anybody has them."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[int, ref[LiveEvent]] = {}

    def __contains__(self, event: LiveEvent) -> bool:
        return id(event) in self._known

    def add(self, event: LiveEvent) -> None:
        """Remember an event, until it is gone."""
        known, number = self._known, id(event)
        known[number] = ref(event, lambda _: known.pop(number, None))


class Receiver(Protocol):
    """Where a node sends its events: another node, or the sink."""

    @property
    def name(self) -> str:
        """Its name in the graph."""
        ...

    def offer(self, event: LiveEvent) -> bool:
        """Take an event if there is a place for it; False where one has to wait."""
        ...

    async def queue_event(self, event: LiveEvent) -> None:
        """Take an event as the overflow rule says."""
        ...


class Node:
    """Takes events one at a time, in their order, and sends events on.

    Override `process_event`; here it sends every event on as it is. An exception in it becomes
    an `agent.error`, and the node goes on with the next event. An interruptible node is cancelled
    in what it does when the user interrupts; what waits in its inbox stays there.

    `inbox` is how many events may wait, and `overflow` what happens then: ``"wait"`` lets the
    sender wait for up to 5 seconds, ``"drop_oldest"`` and ``"drop_newest"`` drop at once. What is
    dropped is reported. Raises InvalidInput.
    """

    severity: Severity = "fatal"
    """Of its exceptions."""

    def __init__(
        self,
        name: str | None = None,
        is_interruptible: bool = False,
        *,
        inbox: int = SIZE,
        overflow: Overflow = "wait",
    ) -> None:
        self.name = type(self).__name__ if name is None else name
        self.is_interruptible = is_interruptible
        self._inbox: Inbox[LiveEvent] = Inbox(inbox, overflow)
        self.__session: AgentSession | None = None
        self.__children: tuple[Receiver, ...] = ()
        self.__parents: tuple[Any, ...] = ()
        self.__seen: Seen | None = None
        self.__worker: asyncio.Task[None] | None = None
        self._current: LiveEvent | None = None
        self.__interrupted = False
        self.__sending: asyncio.Task[None] | None = None

    # -- what a node is made of

    async def process_event(self, event: LiveEvent) -> None:
        """Do something with an event; by default send it on."""
        await self.send_event(event)

    async def start(self) -> None:
        """Called when the session starts, before the first event; `speak` and `send_event` work."""

    async def stop(self) -> None:
        """Called once when the session ends."""

    # -- what it can use

    @property
    def session(self) -> AgentSession:
        """The session that the node is part of. Raises UsageError before it was added to one."""
        if self.__session is None:
            raise UsageError(f"node {self.name!r} is in no session yet; session.add_node(…) it")
        return self.__session

    @property
    def attached(self) -> bool:
        """Whether the node is part of a session that has started."""
        return self.__session is not None

    @property
    def children(self) -> tuple[Receiver, ...]:
        """Where its events go, in the order the edges were added."""
        return self.__children

    @property
    def parents(self) -> tuple[Any, ...]:
        """The nodes whose events it gets."""
        return self.__parents

    async def send_event(self, event: LiveEvent) -> None:
        """Send an event to the children, in the order their edges were added."""
        if self.__sending is not None:
            await asyncio.shield(self.__sending)
        children = self.__children
        for place, child in enumerate(children):
            if not child.offer(event):
                await self.__wait_for_place(event, children[place:])
                return

    async def queue_event(self, event: LiveEvent) -> None:
        """Put an event into this node's inbox, as its overflow rule says."""
        if self._twice(event) or await self._inbox.put(event):
            return
        await self._report_full()

    def offer(self, event: LiveEvent) -> bool:
        """Put an event into the inbox if there is a place for it."""
        seen = self.__seen
        return self._inbox.offer(event) if seen is None else self._offer_once(event, seen)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    # -- what the session does with it

    def link(
        self,
        session: AgentSession,
        children: tuple[Receiver, ...],
        parents: tuple[Any, ...],
        *,
        joins: bool,
    ) -> None:
        """Give the node its place in a graph that is locked; where paths join, an event that
        comes by two of them is taken once."""
        if self.__session is not None and self.__session is not session:
            raise UsageError(
                f"node {self.name!r} is part of another session; make a new one for each session"
            )
        self.__session = session
        self.__children = children
        self.__parents = parents
        self.__seen = Seen() if joins else None
        if not joins and type(self).offer is Node.offer:
            self.__dict__["offer"] = self._inbox.offer  # there is nothing else to look at

    def run(self) -> asyncio.Task[None]:
        """Start to work on the inbox."""
        self.__worker = asyncio.get_running_loop().create_task(self._work(), name=f"{self.name}")
        return self.__worker

    async def finish(self) -> None:
        """Stop to work, and call `stop`."""
        worker, self.__worker = self.__worker, None
        if worker is not None and worker is not asyncio.current_task():
            worker.cancel()
            await asyncio.wait([worker])
        if self.__sending is not None:
            self.__sending.cancel()
        await self.stop()

    def interrupt(self, event: UserInterrupt) -> list[LLMRequest]:
        """Cancel what the node does, if it is interruptible, and hand it the event next.

        Requests for answers that wait are pulled out; they are returned.
        """
        pulled: list[LiveEvent] = []
        if self.is_interruptible:
            pulled = self._inbox.pull(lambda waiting: isinstance(waiting, LLMRequest))
            if self._is_working() and self.__worker is not None and not self.__interrupted:
                self.__interrupted = True
                self.__worker.cancel()
        if self.__seen is None:
            self.__seen = Seen()
            self.__dict__.pop("offer", None)
        self.__seen.add(event)
        self._inbox.push(event)
        return [request for request in pulled if isinstance(request, LLMRequest)]

    # -- inside

    def __settle_interrupt(self) -> None:
        """The interruption is over; not the end of the node, where that came too."""
        self.__interrupted = False
        _uncancel()
        if being_cancelled():
            raise asyncio.CancelledError

    def _is_working(self) -> bool:
        """Whether the node does something that an interruption stops."""
        return self._current is not None

    async def __wait_for_place(self, event: LiveEvent, children: Sequence[Receiver]) -> None:
        """Send an event to children that have no place for it; also where the node is cancelled
        meanwhile it comes there, and before any later one."""

        async def send() -> None:
            try:
                for child in children:
                    if not child.offer(event):
                        await child.queue_event(event)
            finally:
                self.__sending = None

        self.__sending = asyncio.get_running_loop().create_task(send())
        await asyncio.shield(self.__sending)

    async def _work(self) -> None:
        inbox = self._inbox
        current_session.set(self.__session)
        while True:
            event = inbox.pop()
            if event is None:
                await inbox.wait()
                continue
            self._current = event
            failed: BaseException | None = None
            try:
                await self.process_event(event)
            except (Exception, asyncio.CancelledError) as error:
                if not self.__interrupted:
                    if being_cancelled():
                        raise
                    failed = error
            finally:
                self._current = None
                if self.__interrupted:
                    self.__settle_interrupt()
            if failed is not None:
                await self._failed(failed, "process_event")

    async def _failed(self, error: BaseException, where: str, **more: Any) -> None:
        """Tell of an exception; the node and its siblings go on."""
        if lost_by(self.session, error):
            return
        _log.error("%s.%s failed", self.name, where, exc_info=error)
        kind = type(error).__name__
        await self.session.report(
            f"{kind} in {self.name}.{where}{self.session.told(error)}",
            self.severity,
            {"node_name": self.name, "error_class": kind, **more},
        )

    async def _report_full(self) -> None:
        if self._inbox.dropped == 1:
            await self.session.report(
                f"the inbox of node {self.name!r} is full ({self._inbox.size} events): it takes "
                "too long; events for it are dropped",
                "warning",
                {"node_name": self.name, "code": "inbox_full"},
            )

    def _offer_once(self, event: LiveEvent, seen: Seen) -> bool:
        if event in seen:
            return True
        if not self._inbox.offer(event):
            return False
        seen.add(event)
        return True

    def _twice(self, event: LiveEvent) -> bool:
        """Whether the event came by another path already; from here on it has."""
        seen = self.__seen
        if seen is None:
            return False
        if event in seen:
            return True
        seen.add(event)
        return False


class BackgroundNode(Node):
    """Looks on: every event goes on at once, and `process_event` gets it beside the flow.

    Its exceptions are warnings.
    """

    severity: Severity = "warning"

    async def process_event(self, event: LiveEvent) -> None:
        """Do something with an event, which has been sent on already."""

    def offer(self, event: LiveEvent) -> bool:
        """Never at once: an event goes on to the children first."""
        return False

    async def queue_event(self, event: LiveEvent) -> None:
        """Send an event on, and put it into the inbox; where that is full, it is dropped."""
        if not self._twice(event):
            await self.send_event(event)
            if not self._inbox.offer(event):
                self._inbox.dropped += 1
                await self._report_full()


def being_cancelled() -> bool:
    """Whether the running task itself was cancelled, rather than something that it awaits."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _uncancel() -> None:
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()
