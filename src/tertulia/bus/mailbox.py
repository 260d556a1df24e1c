"""The events that wait for one listener, and how they are counted."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar, copy_context
from threading import RLock
from typing import Protocol

from tertulia.bus.base import BusEvent, Listener, compiled

PATIENCE = 8
"""How many times emitters pause for a listener in another thread that makes no room."""
PAUSE = 0.001
"""Seconds that such a pause lasts."""

Loop = asyncio.AbstractEventLoop
Monotonic = Callable[[], float]

log = logging.getLogger("tertulia.bus")


class Runner(Protocol):
    """Who takes events out of a mailbox and hands them to its listener."""

    def wake(self, running: Loop | None) -> None:
        """There is something to take; `running` is the loop that runs here, if one does."""
        ...

    def stop(self) -> None:
        """The mailbox was closed: end what runs for it."""
        ...

    def gone(self) -> bool:
        """Whether it can never run again, because its loop is closed."""
        ...

    def beside(self, running: Loop) -> bool:
        """Whether it runs elsewhere than on this loop."""
        ...


class Keeper(Protocol):
    """What a mailbox needs of its bus."""

    lock: RLock

    def overflows(self, mailbox: Mailbox) -> None:
        """Note a mailbox to be seen to; under the lock."""
        ...

    def remove(self, mailbox: Mailbox) -> None:
        """Forget a mailbox; under the lock."""
        ...


within: ContextVar[Mailbox | None] = ContextVar("tertulia_bus_within", default=None)
"""The mailbox whose listener is running here."""


class Mailbox:
    """A bounded queue with one listener; when it is full, the oldest event is dropped.

    Events are put in under the lock of the bus; they are taken out by the one runner of the
    mailbox, without it. `scheduled` says whether a runner is on it, and changes under the lock.
    """

    on_close: Callable[[], object] | None = None
    """Called once, when it was closed."""
    name = ""
    """The listener, for the log."""
    number = 0
    """Its place in the order of registration."""
    scheduled = False
    closed = False
    accepted = 0
    done = 0
    """Events whose call has returned."""
    lost = 0
    _failures = 0
    _warned = False
    _patience = PATIENCE
    _paused_at = -1
    _waited_at = -1

    def __init__(self, keeper: Keeper, client_id: str, pattern: str, size: int) -> None:
        self.client_id = client_id
        self.pattern = pattern
        self.matches = compiled(pattern)
        self.queue: deque[BusEvent] = deque()
        self.runner: Runner
        self._keeper = keeper
        self._size = size
        self._nearly_full = max(1, size * 3 // 4)

    def put(self, event: BusEvent) -> bool:
        """Take an event in; under the lock. Whether the runner must be woken."""
        queue = self.queue
        if len(queue) >= self._size:
            self._drop()
        queue.append(event)
        self.accepted += 1
        if self.scheduled:
            return False
        self.scheduled = True
        return True

    def take(self) -> BusEvent | None:
        """The next event; None when there is none, and then the next `put` wakes the runner."""
        while True:
            try:
                return self.queue.popleft()
            except IndexError:
                if self.rest():
                    return None

    def rest(self) -> bool:
        """Leave the mailbox, if it is empty; the next `put` wakes the runner."""
        with self._keeper.lock:
            if self.queue:
                return False
            self.scheduled = False
            return True

    def leave(self) -> None:
        """Leave it as it is; the next `put` wakes the runner."""
        with self._keeper.lock:
            self.scheduled = False

    def close(self) -> None:
        """Take nothing more in, drop what waits, end what runs. Once is as good as twice."""
        with self._keeper.lock:
            if self.closed:
                return
            self.closed = True
            self._keeper.remove(self)
            self.queue.clear()
        self.runner.stop()
        if self.on_close is not None:
            self.on_close()

    def drop_out(self, reason: str) -> None:
        """Close, because the listener can never be called again."""
        if not self.closed:
            log.warning("the listener %s of %s is gone: %s", self.name, self.pattern, reason)
            self.close()

    def failed(self, error: BaseException) -> None:
        """Log that the listener raised: where, and not what it said, which may quote a user."""
        self._failures += 1
        if self._failures & (self._failures - 1):
            return
        log.error(
            "the listener %s of %s raised %s (%d times so far); it goes on with the next event\n%s",
            self.name,
            self.pattern,
            type(error).__name__,
            self._failures,
            "".join(traceback.format_tb(error.__traceback__)),
        )

    def attend(self) -> None:
        """See to a mailbox that overflows: close it when its loop is gone, warn once if not."""
        if self.runner.gone():
            self.drop_out("its event loop is closed")
        elif not self._warned:
            self._warned = True
            log.warning(
                "the listener %s of %s is too slow: more than %d events wait, "
                "so the oldest are dropped",
                self.name,
                self.pattern,
                self._size,
            )

    def pause(self, running: Loop) -> float | None:
        """How many seconds an emitter on this loop should wait for room; None for not at all.

        A listener that does not move is not waited for, nor one on another thread that stays full.
        """
        if len(self.queue) < self._nearly_full:
            self._patience = PATIENCE
            return None
        if self.runner.beside(running):
            self._patience -= 1
            return PAUSE if self._patience >= 0 else None
        if self._paused_at == self.done:
            return None
        self._paused_at = self.done
        return 0.0

    def outstanding(self) -> Outstanding | None:
        """What a drain has to wait for; None for nothing, and for a listener that is stuck."""
        with self._keeper.lock:
            left = self.accepted - self.done - self.lost
            if left <= 0 or self._waited_at == self.done or within.get() is self:
                return None
            return Outstanding(self, left, len(self.queue), self.done, self.lost)

    def gave_no_answer(self) -> None:
        """It was waited for in vain."""
        self._waited_at = self.done

    def _drop(self) -> None:
        """Drop the oldest event, if its runner has not just taken it."""
        try:
            self.queue.popleft()
        except IndexError:
            return
        self.lost += 1
        if self.lost == 1 or self.lost % self._size == 0:
            self._keeper.overflows(self)


class Outstanding:
    """What waited in a mailbox at one moment, and the event that was being handled."""

    def __init__(self, mailbox: Mailbox, left: int, queued: int, done: int, lost: int) -> None:
        self._mailbox = mailbox
        self._left = left
        self._queued = queued
        self._done = done
        self._lost = lost

    def over(self) -> bool:
        """Whether all of it was handled or dropped."""
        mailbox = self._mailbox
        dropped = min(mailbox.lost - self._lost, self._queued)
        return mailbox.closed or mailbox.done - self._done + dropped >= self._left

    def give_up(self) -> None:
        """Wait no longer."""
        self._mailbox.gave_no_answer()


class Call:
    """A listener, its mailbox, and the context in which it was registered."""

    def __init__(self, mailbox: Mailbox, fn: Listener, monotonic: Monotonic) -> None:
        self.mailbox = mailbox
        self.fn = fn
        self.monotonic = monotonic
        self.context = copy_context()
        self.context.run(within.set, mailbox)


def running_loop() -> Loop | None:
    """The loop that runs in this thread, if one does."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
