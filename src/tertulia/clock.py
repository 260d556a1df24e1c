"""Time and ids, as arguments: nothing else in Tertulia reads a clock or makes an id."""

from __future__ import annotations

import os
import time
from collections import deque
from datetime import UTC, date, datetime
from typing import Any, Protocol

from tertulia.errors import InvalidInput

MICROSECONDS = 1_000_000
DAY = 86_400 * MICROSECONDS
SALT_BYTES = 16


class Clock(Protocol):
    """Wall time for the record and monotonic time for waiting."""

    def now(self) -> int:
        """Microseconds since 1970-01-01 UTC; informational, never an order."""
        ...

    def monotonic(self) -> float:
        """Seconds from an arbitrary start, never going back."""
        ...


class Ids(Protocol):
    """The source of randomness: internal ids and salts."""

    def uid(self) -> bytes:
        """16 bytes that no other session, worker or request has."""
        ...

    def salt(self) -> bytes:
        """16 bytes that cannot be guessed."""
        ...


class SystemClock:
    """The clock of the machine."""

    def now(self) -> int:
        return time.time_ns() // 1_000

    def monotonic(self) -> float:
        return time.monotonic()


class SystemIds:
    """Random ids from the operating system.

    Salts are drawn many at a time: a call into the system for each would let other threads in
    between, and cost more than all else that an event needs. Each is used once.
    """

    def uid(self) -> bytes:
        return os.urandom(16)

    def salt(self) -> bytes:
        try:
            return _salts.pop()
        except IndexError:
            drawn = os.urandom(SALT_BYTES * _SALTS)
            starts = range(SALT_BYTES, len(drawn), SALT_BYTES)
            _salts.extend([drawn[start : start + SALT_BYTES] for start in starts])
            return drawn[:SALT_BYTES]


_SALTS = 256
_salts: deque[bytes] = deque(maxlen=16 * _SALTS)
os.register_at_fork(after_in_child=_salts.clear)


def to_datetime(microseconds: int) -> datetime:
    """The moment as an aware datetime in UTC."""
    return datetime.fromtimestamp(microseconds / MICROSECONDS, UTC)


def to_iso(microseconds: int) -> str:
    """The moment as ISO 8601 text in UTC, with microseconds and a ``Z``."""
    moment = to_datetime(microseconds)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f") + "Z"


def from_moment(moment: Any) -> int:
    """Microseconds of a datetime, a date or ISO 8601 text; no zone means UTC.

    Raises InvalidInput when it is none of these.
    """
    if isinstance(moment, str):
        try:
            moment = datetime.fromisoformat(moment)
        except ValueError:
            raise InvalidInput(
                f"{moment!r} is no date; write it like 2024-01-31 or 2024-01-31T08:30:00Z"
            ) from None
    if not isinstance(moment, date):
        raise InvalidInput(f"{moment!r} is no date; pass a datetime, or text like 2024-01-31")
    if not isinstance(moment, datetime):
        moment = datetime(moment.year, moment.month, moment.day, tzinfo=UTC)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * MICROSECONDS)
