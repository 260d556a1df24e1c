"""What a live session fills in of each event: its id, its time, and whose it is."""

from __future__ import annotations

from uuid import uuid4

from msgspec.structs import force_setattr

from tertulia.clock import Clock, to_iso
from tertulia.wire.events import LiveEvent


class Stamps:
    """Fills in the events of one session, as they enter it."""

    __slots__ = ("_clock", "_count", "_prefix", "_second", "_session_id", "_written")

    def __init__(self, session_id: str, clock: Clock) -> None:
        self._session_id = session_id
        self._clock = clock
        self._prefix = f"{uuid4().hex[:12]}-"
        self._count = 0
        self._second = (-1, "")
        self._written = (-1, "")

    def put(self, event: LiveEvent, direction: str) -> None:
        """Fill in what an event does not say of itself, and what is not its to say."""
        if event.seq is not None and direction == "in":
            force_setattr(event, "seq", None)
        force_setattr(event, "direction", direction)
        force_setattr(event, "session_id", self._session_id)
        if event.id is None:
            self._count += 1
            force_setattr(event, "id", f"{self._prefix}{self._count}")
        if event.timestamp is None:
            force_setattr(event, "timestamp", self._timestamp())

    def _timestamp(self) -> str:
        """The time as text, to the millisecond."""
        milliseconds = self._clock.now() // 1_000
        if milliseconds != self._written[0]:
            seconds = milliseconds // 1_000
            if seconds != self._second[0]:
                self._second = seconds, to_iso(seconds * 1_000_000)[:19]
            self._written = milliseconds, f"{self._second[1]}.{milliseconds % 1_000:03d}Z"
        return self._written[1]
