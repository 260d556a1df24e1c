"""The sink of a graph: what nodes send goes into the log, to the hooks and to the client."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tertulia.errors import InvalidFrame, InvalidInput, SessionEnded, SessionNotFound
from tertulia.live.ends import turn_of
from tertulia.live.inbox import Inbox
from tertulia.live.nodes import Seen
from tertulia.live.scribe import Said
from tertulia.messages import Message
from tertulia.wire.events import (
    AgentErrorEvent,
    AgentSpeak,
    EndCall,
    LiveEvent,
    ResponseChunk,
    ResponseEnd,
    ResponseStart,
    TransferCall,
    fill,
)

if TYPE_CHECKING:
    from tertulia.live.session import AgentSession

BATCH = 50
"""Events that are logged in one commit."""


class Sink:
    """Takes the events of the last nodes, in their order.

    An event that is kept goes to the client once it is durable; everything behind it waits.
    """

    name = "sink"

    def __init__(self, session: AgentSession) -> None:
        self._session = session
        self._inbox: Inbox[LiveEvent] = Inbox()
        self._seen: Seen | None = None
        self._worker: asyncio.Task[None] | None = None
        self._busy = False
        self._idle: asyncio.Event | None = None
        self._closed = False
        self._cut: dict[str, None] = {}

    def link(self, *, joins: bool) -> None:
        """Where several nodes lead here, an event that comes from two of them goes out once."""
        self._seen = Seen() if joins else None

    def offer(self, event: LiveEvent) -> bool:
        """Take an event; False where one has to wait. After the end of the session it is lost."""
        if self._closed or (self._seen is not None and event in self._seen):
            return True
        if self._seen is not None:
            if len(self._inbox) >= self._inbox.size:
                return False
            self._seen.add(event)
        session = self._session
        if event.direction == "in":
            return self._echo(event)
        if event.direction is None:
            session.stamp(event, "out")
        if self._cut and isinstance(event, ResponseEnd) and event.request_id in self._cut:
            fill(event, "interrupted", True)
        if type(event) in _PLAIN and not self._busy:
            link = session.presence.link
            if link is not None:
                link.offer(event)
            session.hooks_get(event)
            return True
        if not self._busy and not self._to_be_logged(event):
            self._pass(event)
            return True
        return self._queue(event)

    async def queue_event(self, event: LiveEvent) -> None:
        """Take an event, waiting for a place."""
        while not self.offer(event):
            await self.idle()

    async def idle(self) -> None:
        """Wait until what was given before has gone out."""
        if self._busy and self._idle is not None:
            await self._idle.wait()

    def cut(self, request_id: str) -> None:
        """No more text of an answer goes out."""
        self._cut[request_id] = None
        if len(self._cut) > 1_000:
            del self._cut[next(iter(self._cut))]

    def stop(self) -> None:
        """Take nothing more, also not from the inbox."""
        self._closed = True
        if self._worker is not None:
            self._worker.cancel()

    # -- inside

    def _echo(self, event: LiveEvent) -> bool:
        """Give the client its own event back, behind all that the nodes sent before it."""
        if not self._session.echo:
            return True
        if self._busy:
            return self._queue(event)
        self._session.client_gets(event)
        return True

    def _to_be_logged(self, event: LiveEvent) -> bool:
        if event.direction == "in":
            return False
        if isinstance(event, ResponseEnd):
            return event.seq is None
        return event.kept and event.seq is None

    def _queue(self, event: LiveEvent) -> bool:
        if not self._inbox.offer(event):
            return False
        if not self._busy:
            self._busy = True
            self._idle = asyncio.Event()
            self._worker = asyncio.get_running_loop().create_task(self._work(self._idle))
        return True

    async def _work(self, idle: asyncio.Event) -> None:
        """Send out what waits, until nothing does."""
        try:
            while len(self._inbox):
                event = await self._inbox.take()
                if not self._to_be_logged(event):
                    self._pass(event)
                    continue
                await self._logged(event)
        finally:
            self._busy = False
            idle.set()

    async def _logged(self, event: LiveEvent) -> None:
        """Log an event, and those right behind it that are to be logged too, and send them out."""
        batch = [event]
        while len(batch) < BATCH and len(self._inbox):
            waiting = self._inbox.peek()
            if isinstance(waiting, ResponseEnd) or not self._to_be_logged(waiting):
                break
            batch.append(await self._inbox.take())
        session = self._session
        try:
            said = [self._said(each) for each in batch]
            positions = await session.scribe.write(said, "out")
        except (InvalidInput, InvalidFrame) as error:
            await self._one_by_one(batch, error)
            return
        except (SessionEnded, SessionNotFound) as error:
            session.finish(str(error))
            return
        except Exception as error:
            session.fail(error)
            return
        for each, seq in zip(batch, positions, strict=True):
            fill(each, "seq", seq)
            self._pass(each)

    async def _one_by_one(self, batch: Sequence[LiveEvent], error: Exception) -> None:
        """One of the events cannot be logged: leave that one out, and say so."""
        if len(batch) == 1:
            told = AgentErrorEvent(
                message=f"the event {batch[0].type} cannot be kept, and was not sent: {error}",
                payload={"code": "not_kept"},
            )
            if not isinstance(batch[0], AgentErrorEvent):
                self._session.stamp(told, "out")
                await self._logged(told)
            if isinstance(batch[0], ResponseEnd):
                fill(batch[0], "discarded", True)
                await self._logged(batch[0])
            return
        for each in batch:
            positions = await self._try(each)
            if positions:
                fill(each, "seq", positions[0])
                self._pass(each)

    async def _try(self, event: LiveEvent) -> list[int]:
        try:
            return await self._session.scribe.write([self._said(event)], "out")
        except (InvalidInput, InvalidFrame) as error:
            await self._one_by_one([event], error)
            return []

    def _said(self, event: LiveEvent) -> Said:
        """What of an event is a message of the conversation."""
        if isinstance(event, AgentSpeak) and event.text.strip():
            metadata = {**(event.metadata or {}), "live": {"speak": event.id}}
            return Said(event, Message.assistant(event.text, metadata=metadata))
        if isinstance(event, ResponseEnd):
            return self._said_answer(event)
        return Said(event)

    def _said_answer(self, event: ResponseEnd) -> Said:
        turn = turn_of(event.request_id)
        if turn is not None:
            return Said(event, turn=turn)
        answer = self._session.answers.find(event.request_id)
        if answer is None or event.discarded:
            return Said(event)
        text = answer.got() if event.interrupted else answer.text[answer.settled :]
        if not text:
            return Said(event)
        live: dict[str, Any] = {"request_id": answer.request_id}
        asked: Any = (event.metadata or {}).get("request")
        if asked not in (None, answer.request_id):
            live["request"] = asked
        metadata: dict[str, Any] = {"live": live}
        if event.interrupted:
            metadata = {"interrupted": True, **metadata}
        return Said(event, Message.assistant(text, metadata=metadata))

    def _pass(self, event: LiveEvent) -> None:
        """Let the hooks and the client have an event."""
        session = self._session
        if event.direction == "in":
            session.client_gets(event)
            return
        if isinstance(event, ResponseChunk) and event.request_id in self._cut:
            return
        _learn(type(event))
        session.answers.passed(event)
        session.client_gets(event)
        session.hooks_get(event)
        if isinstance(event, EndCall | TransferCall):
            session.handed_off = True
        if isinstance(event, EndCall):
            session.finish_soon("the call was ended")
        elif isinstance(event, AgentErrorEvent) and _ends(event):
            session.finish(f"fatal error: {event.message}"[:100])


_PLAIN: set[type[LiveEvent]] = set()
"""Classes of events that nothing has to be done with but to hand them on."""
_SPECIAL = (ResponseStart, ResponseChunk, ResponseEnd, EndCall, TransferCall, AgentErrorEvent)


def _learn(kind: type[LiveEvent]) -> None:
    if not kind.kept and not issubclass(kind, _SPECIAL):
        _PLAIN.add(kind)


def _ends(event: AgentErrorEvent) -> bool:
    """Whether an error is the end of the session."""
    return event.severity == "fatal" and not (event.metadata or {}).get("recovered")
