"""The events that wait to be read, bounded: text is put together first."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from weakref import ref

from msgspec.structs import replace

from tertulia.errors import LiveError, UsageError
from tertulia.wire.events import LiveEvent, ResponseChunk

SIZE = 1_000
"""How many events may wait."""
TOGETHER = 64 * 1024
"""Characters up to which pieces of text are put together."""


class WaitingEvents:
    """Events on their way to one reader.

    When `size` of them wait, neighbouring pieces of one answer become one. Where that frees no
    place: while somebody reads, whoever brings the next event waits (and the server sees a slow
    client); while nobody reads, the oldest is forgotten, and counted in `dropped`.
    """

    def __init__(self, size: int = SIZE) -> None:
        self._size = size
        self._events: deque[LiveEvent] = deque()
        self._reader: asyncio.Future[None] | None = None
        self._bringer: asyncio.Future[None] | None = None
        self._over: LiveError | bool = False
        self._current: ref[EventReader] | None = None
        self.dropped = 0
        """How many events nobody read in time."""

    @property
    def read(self) -> bool:
        """Whether somebody reads: a reader is there, and was not let go."""
        return self._current is not None and self._current() is not None

    def reader(self) -> EventReader:
        """Read from here on; a reader before this one is done. Raises UsageError if it waits."""
        if self._reader is not None and not self._reader.done():
            raise UsageError("events() has a reader; one takes all events and hands them on")
        made = EventReader(self)
        self._current = ref(made, lambda _: _wake(self._bringer))
        return made

    async def put(self, event: LiveEvent) -> None:
        """Add an event; waits while somebody reads and there is no place."""
        if len(self._events) >= self._size:
            self._put_together()
        while self.read and len(self._events) >= self._size and self._over is False:
            self._bringer = asyncio.get_running_loop().create_future()
            await self._bringer
        if len(self._events) >= self._size:
            self._events.popleft()
            self.dropped += 1
        self._events.append(event)
        _wake(self._reader)

    async def take(self, reader: EventReader) -> LiveEvent | None:
        """The next event; None after the last one. Raises what the connection ended with."""
        if self._current is None or self._current() is not reader:
            raise UsageError("events() was called again; only the newest of its readers reads")
        while not self._events:
            if isinstance(self._over, LiveError):
                raise self._over
            if self._over:
                return None
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        event = self._events.popleft()
        _wake(self._bringer)
        return event

    def finish(self, error: LiveError | None) -> None:
        """Nothing more comes."""
        self._over = error or True
        _wake(self._reader)
        _wake(self._bringer)

    def _put_together(self) -> None:
        events: deque[LiveEvent] = deque()
        for event in self._events:
            last = events[-1] if events else None
            if (
                isinstance(event, ResponseChunk)
                and isinstance(last, ResponseChunk)
                and event.request_id == last.request_id
                and len(last.text) < TOGETHER
            ):
                events[-1] = replace(last, text=last.text + event.text)
            else:
                events.append(event)
        self._events = events


class EventReader(AsyncIterator[LiveEvent]):
    """Whoever iterates over the events of a client."""

    def __init__(self, waiting: WaitingEvents) -> None:
        self._waiting = waiting

    def __aiter__(self) -> EventReader:
        return self

    async def __anext__(self) -> LiveEvent:
        event = await self._waiting.take(self)
        if event is None:
            raise StopAsyncIteration
        return event


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
