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


class Slots:
    """Lets so many in at once, in the order of their calls; at most `most` may wait.

    For coroutines of any loop and for threads. Whoever is cancelled leaves the queue.
    """

    __slots__ = ("_free", "_lock", "_most", "_queue", "limit")

    def __init__(self, limit: int, most: int) -> None:
        self.limit = limit
        """How many may be inside."""
        self._free = limit
        self._most = most
        self._lock = threading.Lock()
        self._queue: deque[tuple[Outcome[None], Loop | None]] = deque()

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
            self._entered(doors.current_loop())
            return True

    async def enter(self, seconds: float | None = None) -> None:
        """Wait for one's place and enter. Raises GateFull and GateTimeout."""
        if self.try_enter():
            return
        ticket: Outcome[None] = Outcome()
        with self._lock:
            loop = doors.current_loop()
            if self._free > 0:
                self._free -= 1
                self._entered(loop)
                return
            self._check_waiting()
            self._queue.append((ticket, loop))
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
                self._entered(None)
                return
            ticket, loop = self._queue.popleft()
            self._entered(loop)
        ticket.set_result(None)

    def _entered(self, loop: Loop | None) -> None:
        """Somebody is inside who runs on this loop; None where nobody is, or on no loop."""

    def _check_waiting(self) -> None:
        """Raise where it must not be waited."""
        if len(self._queue) >= self._most:
            raise GateFull

    def _abandon(self, ticket: Outcome[None]) -> None:
        """Leave the queue; whoever was let in in the meantime passes it on."""
        with self._lock:
            before = len(self._queue)
            self._queue = deque(entry for entry in self._queue if entry[0] is not ticket)
            was_queued = len(self._queue) < before
        if not was_queued:
            self.leave()


class Gate(Slots):
    """A fair lock for coroutines of any loop and for threads; at most `most` may wait.

    It refuses a wait that would never end, with GateDeadlock. It holds no reference to a loop
    except while somebody is inside or waits.
    """

    __slots__ = ("_loop",)

    def __init__(self, most: int) -> None:
        super().__init__(1, most)
        self._loop: Loop | None = None

    @property
    def busy(self) -> bool:
        """Whether somebody is inside."""
        return self._free == 0

    async def __aenter__(self) -> None:
        await self.enter()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.leave()

    def _entered(self, loop: Loop | None) -> None:
        self._loop = loop

    def _check_waiting(self) -> None:
        super()._check_waiting()
        blocked = doors.blocked_loop()
        if blocked is not None and (
            self._loop is blocked or any(loop is blocked for _, loop in self._queue)
        ):
            raise GateDeadlock
