"""What a client was told, over any number of connections: every event once, every text once.

After a loss the server repeats what came after a position, and the text so far of the answer that
is being given. Here the repetition is taken out again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from msgspec.structs import replace

from tertulia.wire.events import (
    AgentLog,
    AgentReady,
    LiveEvent,
    ResponseChunk,
    ResponseEnd,
    ResponseStart,
)

OPEN_ANSWERS = 64
"""How many answers may be open at once; of more the oldest is forgotten."""
ENDED_ANSWERS = 256
"""How many ended answers are remembered, so that none is told again."""
WAITS = "approval.requested"
"""The note before the end of an answer that waits for a person, and may go on later."""


def request_of(event: LiveEvent) -> str | None:
    """The id of the request that the server says an answer is for."""
    named = (event.metadata or {}).get("request")
    return named if isinstance(named, str) else None


class _Text:
    """What was told of one answer that is open."""

    __slots__ = ("_parts", "repeated", "request", "size")

    def __init__(self, request: str | None) -> None:
        self.request = request
        """What it is the answer to, where the server says so."""
        self._parts: list[str] = []
        self.size = 0
        self.repeated: int | None = None
        """How much of it was repeated since it began again; None where nothing is repeated."""

    def all(self) -> str:
        """The whole text."""
        self._parts = ["".join(self._parts)]
        return self._parts[0]

    def add(self, text: str) -> None:
        """Go on with it."""
        self._parts.append(text)
        self.size += len(text)

    def become(self, text: str) -> None:
        """Be another text, of which nothing is told yet."""
        self._parts, self.size, self.repeated = [text], len(text), None


class Merger:
    """Takes the frames of one connection after the other, and gives what is new in them."""

    def __init__(self, after: int | None = None) -> None:
        self.seq = after
        """The highest position in the log that came; None before there was any."""
        self._floor = after
        self._open: dict[str | None, _Text] = {}
        self._ended: dict[str, str | None] = {}
        """Those that have ended, and the requests they were for."""
        self._waits = False
        """The next answer that ends waits for a person."""

    def connected(self, ready: AgentReady) -> None:
        """Begin with another connection.

        Without a position yet, or where the log now ends before it, it is the server's.
        """
        if ready.seq is not None and (self.seq is None or ready.seq < self.seq):
            self.seq = ready.seq
        self._floor = self.seq
        if not ready.resumed:
            self._open.clear()

    def take(self, event: LiveEvent) -> Iterable[LiveEvent]:
        """What is new in an event: nothing, the event, or more where a text was begun anew."""
        if event.seq is not None:
            if self._floor is not None and event.seq <= self._floor:
                return ()
            self.seq = max(self.seq or 0, event.seq)
        if isinstance(event, ResponseStart):
            return self._start(event)
        if isinstance(event, ResponseChunk):
            return self._chunk(event)
        if isinstance(event, ResponseEnd):
            return self._end(event)
        if isinstance(event, AgentLog) and event.name == WAITS:
            self._waits = True
        return (event,)

    def _start(self, event: ResponseStart) -> Iterable[LiveEvent]:
        known, request = event.request_id, request_of(event)
        if known in self._ended:
            before = self._ended[known]
            if request is None or before is None or request == before:
                return ()
            del self._ended[known]  # another request lets it go on
        if known is not None and known in self._open:
            self._open[known].repeated = 0
            return ()
        if len(self._open) >= OPEN_ANSWERS:
            del self._open[next(iter(self._open))]
        self._open[known] = _Text(request)
        return (event,)

    def _chunk(self, event: ResponseChunk) -> Iterable[LiveEvent]:
        if event.request_id in self._ended:
            return ()
        text = self._open.get(event.request_id)
        if text is None:
            return (event,)
        if text.repeated is None and event.offset is not None and event.offset < text.size:
            text.repeated = event.offset
        if text.repeated is None:
            return (_next(event, text, event.text),)
        return self._repeated(event, text)

    def _repeated(self, event: ResponseChunk, text: _Text) -> Iterable[LiveEvent]:
        """A piece of a text that is told again: what goes beyond, or all where it is another."""
        told = text.all()
        at = text.repeated if event.offset is None else min(event.offset, text.size)
        at = at or 0
        here = told[at : at + len(event.text)]
        if not event.text.startswith(here):
            text.become(told[:at] + event.text)
            return _anew(event, text.all())
        beyond = event.text[len(here) :]
        text.repeated = None if beyond else at + len(event.text)
        return (_next(event, text, beyond),) if beyond else ()

    def _end(self, event: ResponseEnd) -> Iterable[LiveEvent]:
        if event.request_id in self._ended:
            return ()
        text = self._open.pop(event.request_id, None)
        if self._waits and not event.interrupted:
            self._waits = False
        elif event.request_id is not None:
            if len(self._ended) >= ENDED_ANSWERS:
                del self._ended[next(iter(self._ended))]
            self._ended[event.request_id] = request_of(event) or (text and text.request)
        if text is not None and text.repeated is not None and text.repeated < text.size:
            return (*_anew(event, text.all()[: text.repeated]), event)
        return (event,)


def _next(event: ResponseChunk, text: _Text, new: str) -> ResponseChunk:
    """The chunk with what is new in it, and the place where that belongs."""
    offset = text.size
    text.add(new)
    if event.offset == offset and event.text is new:
        return event
    return replace(event, text=new, offset=offset)


def _anew(event: ResponseChunk | ResponseEnd, text: str) -> list[LiveEvent]:
    """The start and the text of an answer that is another one than what was told of it."""
    shared: dict[str, Any] = {"session_id": event.session_id, "timestamp": event.timestamp}
    start = ResponseStart(request_id=event.request_id, resumed=True, **shared)
    if not text:
        return [start]
    return [start, ResponseChunk(text=text, request_id=event.request_id, offset=0, **shared)]
