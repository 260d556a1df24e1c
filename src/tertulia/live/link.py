"""What goes to one connection of a live session: bounded, in order, coalesced where it must be."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import msgspec

from tertulia.wire.events import LiveEvent, ResponseChunk, ResponseEnd, ResponseStart

COALESCE = 64
"""Events that wait before pieces of text are joined."""
MOST_EVENTS = 1_000
MOST_TEXT = 990_000
"""Characters of text that may wait for a client that reads too slowly, and one piece more: about
as much as a message of the log may have."""

NORMAL = 1000
FAILED = 1011
RESTARTING = 1012
TOO_SLOW = 1013
INVALID = 4400
NOT_AUTHENTICATED = 4401
NOT_ALLOWED = 4403
NO_INIT = 4408
REPLACED = 4409


class Link:
    """The way to one client; the server takes events from it and writes them to the socket.

    While the client gets what it missed, what happens meanwhile is not queued: it is in the log,
    or in the text so far, when the link goes `live`.
    """

    def __init__(self) -> None:
        self._events: deque[LiveEvent] = deque()
        self._aside: list[LiveEvent] = []
        self._text = 0
        self._taker: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._position = 0
        self._given: set[str] = set()
        self.delivers: Callable[[LiveEvent], None] = _nothing
        """Told of each event that is written."""
        self.direct: Callable[[LiveEvent], bool] | None = None
        """Writes an event at once, where the connection takes it; False where it has to wait."""
        self.writing = False
        """Whether the server writes an event that it has taken; no other may overtake it."""
        self.replaying = False
        self.passed = 0
        """The highest position that came by while the client got what it missed."""
        self.greeted = False
        """Whether it was said `agent.ready`."""
        self.closed: tuple[int, str] | None = None
        """Code and reason, once nothing more will be taken in."""

    def __len__(self) -> int:
        return len(self._events)

    # -- what the session gives

    def offer(self, event: LiveEvent) -> None:
        """Send an event as it happens, unless the client has it already."""
        if self.closed is not None:
            return
        if self.replaying:
            self._pass_by(event)
            return
        if self._given and isinstance(event, ResponseStart):
            self._given.discard(event.request_id or "")  # it goes on: what comes is new
        if not self._has(event):
            self.push(event)
        if self._given and isinstance(event, ResponseEnd):
            self._given.discard(event.request_id or "")

    def push(self, event: LiveEvent) -> None:
        """Send an event; a client that is too far behind is closed, and can come back."""
        if self.closed is not None:
            return
        if self.direct is not None and not self.writing and not self._events and self.direct(event):
            self.delivers(event)
            return
        waiting = self._text
        if isinstance(event, ResponseChunk):
            self._text += len(event.text)
            if len(self._events) >= COALESCE and waiting <= MOST_TEXT and self._joined(event):
                return
        if len(self._events) >= MOST_EVENTS or waiting > MOST_TEXT:
            self._events.clear()
            self.close(TOO_SLOW, "too slow: come back with session_id and after")
            return
        self._events.append(event)
        self._wake()

    def close(self, code: int, reason: str) -> None:
        """Take in nothing more; the connection is closed once what waits is written."""
        if self.closed is None:
            self.closed = code, reason
            self._wake()
            self._free()

    def cut(self, request_ids: set[str]) -> None:
        """Drop the text of answers that was not written yet; where they end, they were cut."""
        if not any(_of(event, request_ids) for event in self._events):
            return
        kept = [event for event in self._events if not _text_of(event, request_ids)]
        self._events = deque(_cut_off(event, request_ids) for event in kept)
        self._text = sum(len(event.text) for event in kept if isinstance(event, ResponseChunk))

    def live(self, position: int, given: set[str]) -> None:
        """The client has everything up to a position, and these answers: go on as it happens."""
        self.replaying = False
        self._position = position
        self._given = given
        waiting, self._aside = self._aside, []
        for event in waiting:
            self.push(event)

    async def room(self) -> None:
        """Wait until the client is not far behind."""
        while self.closed is None and len(self._events) >= COALESCE:
            self._room = asyncio.get_running_loop().create_future()
            await self._room

    # -- what the server takes

    def next(self) -> LiveEvent | None:
        """The next event, if one waits."""
        if not self._events:
            return None
        event = self._events.popleft()
        if isinstance(event, ResponseChunk):
            self._text -= len(event.text)
        if self._room is not None and len(self._events) < COALESCE:
            self._free()
        self.delivers(event)
        return event

    async def wait(self) -> bool:
        """Wait until something is to be taken; False when the link is closed instead."""
        while not self._events:
            if self.closed is not None:
                return False
            taker = self._taker = asyncio.get_running_loop().create_future()
            await taker
        return True

    # -- inside

    def _pass_by(self, event: LiveEvent) -> None:
        if event.seq is not None:
            self.passed = max(self.passed, event.seq)
        elif not isinstance(event, ResponseStart | ResponseChunk | ResponseEnd):
            self._aside.append(event)
            if len(self._aside) > MOST_EVENTS:
                self.close(TOO_SLOW, "too slow: come back with session_id and after")

    def _has(self, event: LiveEvent) -> bool:
        if event.seq is not None:
            return event.seq <= self._position
        return bool(self._given) and _of(event, self._given)

    def _joined(self, event: ResponseChunk) -> bool:
        """Join a piece of text to the one before it, where they are one answer's."""
        last = self._events[-1]
        if not isinstance(last, ResponseChunk) or last.request_id != event.request_id:
            return False
        self._events[-1] = msgspec.structs.replace(last, text=last.text + event.text)
        return True

    def _wake(self) -> None:
        taker, self._taker = self._taker, None
        if taker is not None and not taker.done():
            taker.set_result(None)

    def _free(self) -> None:
        room, self._room = self._room, None
        if room is not None and not room.done():
            room.set_result(None)


def _nothing(event: LiveEvent) -> None:
    """Nobody wants to know."""


def _cut_off(event: LiveEvent, request_ids: set[str]) -> LiveEvent:
    if isinstance(event, ResponseEnd) and event.request_id in request_ids:
        return msgspec.structs.replace(event, interrupted=True)
    return event


def _of(event: LiveEvent, request_ids: set[str]) -> bool:
    of_answer = isinstance(event, ResponseStart | ResponseChunk | ResponseEnd)
    return of_answer and event.request_id in request_ids


def _text_of(event: LiveEvent, request_ids: set[str]) -> bool:
    return isinstance(event, ResponseChunk) and event.request_id in request_ids
