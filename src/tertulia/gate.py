"""The turnstiles: one at a time before a session or an entity, some at a time in a process."""

from __future__ import annotations

import threading
from collections import deque
from types import TracebackType

from tertulia import doors
from tertulia.doors import Loop, Outcome


class GateFull(Exception):
    """Too many wait already."""


class GateTimeout(Exception):
    """The gate did not open before the deadline."""


class GateDeadlock(Exception):
    """Waiting would block the event loop that whoever is inside needs to go on."""


class Gate:
    """A fair lock for coroutines of any loop and for threads; at most `limit` may wait.

    It is entered in the order of the calls of `enter`. It holds no reference to a loop except
    while somebody is inside or waits, and whoever is cancelled leaves the queue.
    """

    __slots__ = ("_inside", "_limit", "_lock", "_loop", "_queue")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._inside = False
        self._loop: Loop | None = None
        self._queue: deque[tuple[Outcome[None], Loop | None]] = deque()

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._queue)

    @property
    def busy(self) -> bool:
        """Whether somebody is inside."""
        return self._inside

    def try_enter(self) -> bool:
        """Enter if that needs no waiting."""
        with self._lock:
            if self._inside or self._queue:
                return False
            self._inside = True
            self._loop = doors.current_loop()
            return True

    async def enter(self, seconds: float | None = None) -> None:
        """Wait for one's place and enter. Raises GateFull, GateTimeout and GateDeadlock."""
        if self.try_enter():
            return
        ticket: Outcome[None] = Outcome()
        with self._lock:
            if not self._inside and not self._queue:
                self._inside, self._loop = True, doors.current_loop()
                return
            self._refuse_hopeless()
            self._queue.append((ticket, doors.current_loop()))
        try:
            if not await ticket.within(seconds):
                raise GateTimeout
        except BaseException:
            self._abandon(ticket)
            raise

    def leave(self) -> None:
        """Let the next one in."""
        with self._lock:
            if not self._queue:
                self._inside, self._loop = False, None
                return
            ticket, self._loop = self._queue.popleft()
        ticket.set_result(None)

    async def __aenter__(self) -> None:
        await self.enter()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.leave()

    def _refuse_hopeless(self) -> None:
        if len(self._queue) >= self._limit:
            raise GateFull
        blocked = doors.blocked_loop()
        if blocked is not None and (
            self._loop is blocked or any(loop is blocked for _, loop in self._queue)
        ):
            raise GateDeadlock

    def _abandon(self, ticket: Outcome[None]) -> None:
        """Leave the queue; if the gate was opened for us in the meantime, pass it on."""
        with self._lock:
            before = len(self._queue)
            self._queue = deque(entry for entry in self._queue if entry[0] is not ticket)
            was_queued = len(self._queue) < before
        if not was_queued:
            self.leave()


class Slots:
    """Lets so many in at once, in the order of their calls; at most `most` may wait.

    For coroutines of any loop and for threads.
    """

    __slots__ = ("_free", "_lock", "_most", "_queue", "limit")

    def __init__(self, limit: int, most: int) -> None:
        self.limit = limit
        """How many may be inside."""
        self._free = limit
        self._most = most
        self._lock = threading.Lock()
        self._queue: deque[Outcome[None]] = deque()

    @property
    def taken(self) -> int:
        """How many are inside."""
        return self.limit - self._free

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._queue)

    def try_enter(self) -> bool:
        """Enter if that needs no waiting."""
        with self._lock:
            if self._free == 0:
                return False
            self._free -= 1
            return True

    async def enter(self, seconds: float | None = None) -> None:
        """Wait for one's turn and enter. Raises GateFull and GateTimeout."""
        ticket: Outcome[None] = Outcome()
        with self._lock:
            if self._free > 0:
                self._free -= 1
                return
            if len(self._queue) >= self._most:
                raise GateFull
            self._queue.append(ticket)
        try:
            if not await ticket.within(seconds):
                raise GateTimeout
        except BaseException:
            self._abandon(ticket)
            raise

    def leave(self) -> None:
        """Let the next one in."""
        with self._lock:
            if not self._queue:
                self._free += 1
                return
            ticket = self._queue.popleft()
        ticket.set_result(None)

    def _abandon(self, ticket: Outcome[None]) -> None:
        """Leave the queue; if we were let in in the meantime, pass it on."""
        with self._lock:
            queued = ticket in self._queue
            if queued:
                self._queue.remove(ticket)
        if not queued:
            self.leave()
