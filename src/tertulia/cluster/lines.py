"""What a channel needs of the link that carries it, and the ways in which it comes to an end."""

from __future__ import annotations

import threading
from collections import deque
from typing import Protocol

import msgspec

from tertulia.cluster.frames import Frame
from tertulia.cluster.windows import MESSAGE_LIMIT
from tertulia.doors import Outcome
from tertulia.errors import InvalidInput, WorkerLost


class ChannelClosed(WorkerLost):
    """The channel is closed: refused, its handler failed, or one side is done; see `reason`."""

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class NotDelivered(WorkerLost):
    """The worker cannot be reached, and has not heard what was said to it."""


class Ending(msgspec.Struct, frozen=True):
    """Why a channel is over."""

    reason: str
    lost: bool = False
    done: bool = False
    """Whether the other side closed it in order: then what came before is all there is."""

    def error(self) -> WorkerLost:
        """What whoever uses the channel is told."""
        if self.lost:
            return WorkerLost(self.reason)
        return ChannelClosed(f"the channel is closed: {self.reason}", reason=self.reason)


class Line(Protocol):
    """What a channel needs of its link."""

    lock: threading.Lock
    """Guards the link and all its channels."""

    def say(self, frame: Frame) -> int:
        """Send a frame, with the lock held: its number; 0 where there is no room for it now."""
        ...

    def say_later(self, frame: Frame) -> None:
        """Send a CLOSE as soon as there is room for it, with the lock held."""
        ...

    def owes(self, channel: int) -> None:
        """Have a channel try with the next beat to give room back, with the lock held."""
        ...

    def forget(self, channel: int) -> None:
        """The channel is over, with the lock held."""
        ...


class Turnstile:
    """Lets one after the other through, in the order of their coming, from any thread or loop."""

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock
        self._taken = False
        self._next: deque[Outcome[None]] = deque()

    async def enter(self) -> None:
        """Wait until nobody else is inside."""
        with self._lock:
            if not self._taken:
                self._taken = True
                return
            mine: Outcome[None] = Outcome()
            self._next.append(mine)
        try:
            await mine
        except BaseException:
            self._give_up(mine)
            raise

    def leave(self) -> None:
        """Let the next one in."""
        with self._lock:
            if self._next:
                self._next.popleft().set_result(None)
            else:
                self._taken = False

    def _give_up(self, mine: Outcome[None]) -> None:
        with self._lock:
            if not mine.done:
                self._next.remove(mine)
                return
        self.leave()


def check_size(data: bytes) -> None:
    """Raises InvalidInput for data that is too large for one message."""
    if len(data) > MESSAGE_LIMIT:
        raise InvalidInput(
            f"{len(data)} bytes are too many for one message of a channel; send at most "
            f"{MESSAGE_LIMIT} at once"
        )
