"""A clock that a test turns."""

from __future__ import annotations

import threading
import time
from datetime import datetime, timedelta

from tertulia.clock import MICROSECONDS, from_moment, to_iso
from tertulia.errors import InvalidInput

START = "2026-01-01T00:00:00Z"


class FrozenClock:
    """A clock that goes on only when it is told to: ``Runtime(clock=FrozenClock())``.

    `start` is ISO 8601 text, a datetime or a date (no zone means UTC), or microseconds since
    1970. With `tick`, each reading of `now` is so many seconds later than the one before, so that
    events have rising times. It may be shared by threads.

    Only the time of the record is frozen: `monotonic`, which deadlines go by, runs on in real
    time, so that no wait is for ever, and jumps with `advance`. Raises InvalidInput for a start
    that is no moment, and for a tick below zero.
    """

    def __init__(self, start: str | datetime | int = START, *, tick: float = 0.0) -> None:
        if isinstance(start, bool) or tick < 0:
            raise InvalidInput(f"start={start!r}, tick={tick!r}: pass a moment, and 0 or more")
        self._lock = threading.Lock()
        self._time = start if isinstance(start, int) else from_moment(start)
        self._tick = round(tick * MICROSECONDS)
        self._passed = 0

    def now(self) -> int:
        """Microseconds since 1970-01-01 UTC."""
        with self._lock:
            read = self._time
            self._time += self._tick
            return read

    def monotonic(self) -> float:
        """Real seconds, and those that `advance` was told."""
        with self._lock:
            return time.monotonic() + self._passed / MICROSECONDS

    def advance(
        self, seconds: float = 0.0, *, minutes: float = 0.0, hours: float = 0.0, days: float = 0.0
    ) -> None:
        """Let time pass. Raises InvalidInput for less than none."""
        length = timedelta(seconds=seconds, minutes=minutes, hours=hours, days=days)
        if length < timedelta():
            raise InvalidInput(f"time does not go back: advance({length.total_seconds()} seconds)")
        with self._lock:
            self._time += length // timedelta(microseconds=1)
            self._passed += length // timedelta(microseconds=1)

    def __repr__(self) -> str:
        return f"FrozenClock({to_iso(self._time)!r})"
