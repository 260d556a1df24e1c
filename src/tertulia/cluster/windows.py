"""How much one side of a channel may send before the other has taken it. Pure.

Each frame costs its bytes and one frame of the window, and both come back when the message that
it is a part of was taken. A message larger than the window gets room for its next parts as soon
as it is the only one that waits, so that a reader who does not read has at most one such message
and one window in its memory.
"""

from __future__ import annotations

from collections import deque

import msgspec

WINDOW = 256 * 1024
"""Bytes that one side may send ahead."""
WINDOW_FRAMES = 64
"""Frames that one side may send ahead."""
MESSAGE_LIMIT = 4 * 1024 * 1024
"""Bytes of one message at most, in all its parts."""


class Room(msgspec.Struct):
    """What this side may still send."""

    size: int = WINDOW
    frames: int = WINDOW_FRAMES

    def fits(self, size: int) -> bool:
        """Whether a frame with so many bytes may be sent now."""
        return self.frames > 0 and self.size >= size

    def take(self, size: int) -> None:
        """A frame with so many bytes was sent."""
        self.size -= size
        self.frames -= 1

    def give(self, size: int, frames: int) -> None:
        """The other side took so much; never more than the window."""
        self.size = min(WINDOW, self.size + size)
        self.frames = min(WINDOW_FRAMES, self.frames + frames)


class Cost(msgspec.Struct):
    """Bytes and frames of the window."""

    size: int = 0
    frames: int = 0

    def add(self, other: Cost) -> None:
        """Count what another has too."""
        self.size += other.size
        self.frames += other.frames


class Arrivals:
    """Messages that came, put together from their parts, and the room that is owed for them."""

    def __init__(self) -> None:
        self._ready: deque[tuple[bytes, Cost]] = deque()
        self._parts: list[bytes] = []
        self._length = 0
        self._kept = Cost()
        """What the parts of the message that is not whole cost."""
        self._owed = Cost()
        """What was taken, and the other side does not know of yet."""
        self._used = Cost()
        """What the other side has used of the window."""

    def add(self, part: bytes, *, more: bool) -> bool:
        """Take in a part; False where the other side sends what it may not."""
        cost = Cost(len(part), 1)
        self._used.add(cost)
        self._length += len(part)
        pointless = not part and (more or bool(self._parts))
        if pointless or self._length > MESSAGE_LIMIT or self._over_window():
            return False
        self._parts.append(part)
        self._kept.add(cost)
        if more:
            self._go_on()
        else:
            self._ready.append((b"".join(self._parts), self._kept))
            self._parts, self._length, self._kept = [], 0, Cost()
        return True

    def take(self) -> bytes | None:
        """The next message; None where none is whole."""
        if not self._ready:
            return None
        data, cost = self._ready.popleft()
        self._owed.add(cost)
        self._go_on()
        return data

    def due(self) -> Cost | None:
        """The room to give back now, which is a quarter of the window or more."""
        owed = self._owed
        enough = owed.size * 4 >= WINDOW or owed.frames * 4 >= WINDOW_FRAMES
        return owed if enough else None

    def paid(self) -> None:
        """What was due was given back."""
        self._used.size -= self._owed.size
        self._used.frames -= self._owed.frames
        self._owed = Cost()

    def clear(self) -> None:
        """Forget what came; nobody takes it any more."""
        self._ready.clear()
        self._parts.clear()

    def _over_window(self) -> bool:
        return self._used.size > WINDOW or self._used.frames > WINDOW_FRAMES

    def _go_on(self) -> None:
        """Let the next parts of a message come, if no other waits to be taken."""
        if not self._ready:
            self._owed.add(self._kept)
            self._kept = Cost()
