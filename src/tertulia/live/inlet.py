"""The root of a graph: what the client sends goes into the log, to the hooks and to the nodes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tertulia.errors import InvalidInput, SessionEnded, SessionNotFound
from tertulia.live.inbox import Inbox
from tertulia.live.nodes import Node
from tertulia.live.scribe import Said
from tertulia.messages import Message
from tertulia.wire.events import LiveEvent, LLMRequest, TranscriptUpdate, UserJoined, fill

if TYPE_CHECKING:
    from tertulia.live.session import AgentSession

KNOWN = 1_000
"""Ids of events of the client that are remembered: what it sends again is not taken twice."""


class Inlet:
    """Takes the client's events in their order; what is kept is durable before a node has it."""

    def __init__(self, session: AgentSession) -> None:
        self._session = session
        self._inbox: Inbox[LiveEvent] = Inbox()
        self._roots: tuple[Node, ...] = ()
        self._known: dict[str, None] = {}
        self._worker: asyncio.Task[None] | None = None
        self._rest: tuple[LiveEvent, Sequence[Node]] | None = None
        """An event that some of the first nodes have no place for yet."""
        self._open = False
        self._closed = False
        self._busy = False
        self.newest: str | None = None
        """The id of the newest event of the client that is in the log."""

    def link(self, roots: Sequence[Node]) -> None:
        """Where the events go."""
        self._roots = tuple(roots)

    def open(self) -> None:
        """The nodes are there: let what waits through."""
        self._open = True
        if len(self._inbox):
            self._begin()

    def close(self) -> None:
        """Nothing more comes in; who waits for a place need not wait any more."""
        self._closed = True
        self._inbox.release()
        if self._worker is not None:
            self._worker.cancel()

    def offer(self, event: LiveEvent) -> bool:
        """Take an event, unless it has to wait: then `put` takes it."""
        if self._closed or (isinstance(event, LLMRequest) and self.taken_before(event)):
            return True
        if not self._open or self._busy or self._takes_time(event):
            return False
        self._session.hooks_get(event)
        for place, node in enumerate(self._roots):
            if not node.offer(event):
                self._rest = event, self._roots[place:]
                self._begin()
                break
        return True

    async def put(self, event: LiveEvent) -> None:
        """Take an event. It waits for a place where the nodes are slower than the client."""
        if self._closed:
            return
        while not self._closed and not self._inbox.offer(event):
            await self._inbox.place()
        if self._open and not self._busy:
            self._begin()

    def pull_requests(self) -> list[LLMRequest]:
        """Take out the requests for answers that wait."""
        pulled = self._inbox.pull(lambda waiting: isinstance(waiting, LLMRequest))
        return [request for request in pulled if isinstance(request, LLMRequest)]

    def heard(self, text: str) -> None:
        """This is what was heard of an answer that was given whole already."""
        told = TranscriptUpdate(role="assistant", content=text)
        self._session.stamp(told, "in")
        self._inbox.push(told)
        if self._open and not self._busy:
            self._begin()

    def remember(self, event_id: str, *, kept: bool = True) -> None:
        """The client's event with this id was taken, and is in the log if it is kept there."""
        if kept:
            self.newest = event_id
        self._known[event_id] = None
        if len(self._known) > KNOWN:
            del self._known[next(iter(self._known))]

    # -- inside

    def taken_before(self, event: LiveEvent) -> bool:
        """Whether the client says something again, because it does not know that we heard."""
        known = event.id in self._known
        self.remember(event.id or "", kept=False)
        return known

    def _takes_time(self, event: LiveEvent) -> bool:
        """Whether something is written before the nodes get the event."""
        if event.kept:
            return _to_be_logged(event)
        return isinstance(event, UserJoined) and self._session.greeting is not None

    def _begin(self) -> None:
        self._busy = True
        self._worker = asyncio.get_running_loop().create_task(self._work())

    async def _work(self) -> None:
        try:
            if self._rest is not None:
                (event, nodes), self._rest = self._rest, None
                await _hand(event, nodes)
            while len(self._inbox):
                event = await self._inbox.take()
                if isinstance(event, UserJoined):
                    await self._session.greet()
                if not _to_be_logged(event) or await self._log(event):
                    await self._dispatch(event)
        finally:
            self._busy = False

    async def _log(self, event: LiveEvent) -> bool:
        """Log an event; False where it is there already, or cannot be."""
        session = self._session
        if event.id in self._known:
            return False
        try:
            positions = await session.scribe.write([_said(event)], "in")
        except InvalidInput as error:
            await session.report(
                f"the event {event.type} cannot be kept: {error}", payload={"code": "not_kept"}
            )
            return False
        except (SessionEnded, SessionNotFound) as error:
            session.finish(str(error))
            return False
        except Exception as error:
            session.fail(error)
            return False
        fill(event, "seq", positions[0])
        self.remember(event.id or "")
        return True

    async def _dispatch(self, event: LiveEvent) -> None:
        """Hand an event to the hooks and to the first nodes, in the order they were added."""
        self._session.hooks_get(event)
        await _hand(event, self._roots)


async def _hand(event: LiveEvent, nodes: Sequence[Node]) -> None:
    for node in nodes:
        if not node.offer(event):
            await node.queue_event(event)


def _to_be_logged(event: LiveEvent) -> bool:
    """Whether an event of a client belongs into the log; what an agent says is not its to say."""
    if not event.kept or event.seq is not None:
        return False
    return isinstance(event, TranscriptUpdate) or not event.type.startswith("agent.")


def _said(event: LiveEvent) -> Said:
    if not isinstance(event, TranscriptUpdate):
        return Said(event)
    if event.role == "assistant":
        return Said(event, heard=event.content)
    if not event.content.strip():
        return Said(event)
    message = Message.user(event.content, metadata={"live": {"id": event.id}})
    return Said(event, message)
