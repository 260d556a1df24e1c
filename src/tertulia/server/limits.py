"""What a server takes from its clients: how much, and how fast."""

from __future__ import annotations

import asyncio
from time import monotonic

import msgspec

from tertulia.wire.frames import MAX_FRAME


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a server takes from clients."""

    connections: int = 10_000
    frame: int = MAX_FRAME
    """Bytes of one frame."""
    rate: float | None = None
    """Frames a second of one connection, with bursts of twice as many; None is no limit."""
    init_in: float = 10.0
    """Seconds that a client has to say `system.init`."""
    bad_frames: int = 100
    """Frames that cannot be understood, in a row, until the connection is closed."""
    close_in: float = 5.0
    """Seconds that a client has to take what waits for it when it is closed."""


class Pace:
    """Lets no more frames through than `rate` a second, with bursts of twice as many."""

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._tokens = 0.0
        self._filled = 0.0

    async def keep(self) -> None:
        """Wait where a frame came sooner than it may; None as a rate is no limit."""
        rate = self._rate
        if rate is None:
            return
        now = monotonic()
        self._tokens = min(rate * 2, self._tokens + (now - self._filled) * rate)
        self._filled = now
        if self._tokens < 1:
            await asyncio.sleep((1 - self._tokens) / rate)
            self._filled = monotonic()
            self._tokens = 1
        self._tokens -= 1
