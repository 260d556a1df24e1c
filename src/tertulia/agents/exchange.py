"""What passes between the task that drives a turn and whoever consumes its events."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

from tertulia.agents.response import Response, StreamEvent
from tertulia.doors import Outcome
from tertulia.errors import TurnInterrupted
from tertulia.turns import Turn

BUFFER = 64
"""Events that a driver may be ahead of its consumer; then it waits."""


class Exchange:
    """A bounded buffer of events between two threads or tasks, and the outcome at its end.

    It knows what the consumer has got: that is what an interrupted turn keeps. Without a
    listener events are dropped, and only the outcome counts.
    """

    def __init__(self, *, listened: bool) -> None:
        self.outcome: Outcome[Response] = Outcome()
        """Given once the turn is closed."""
        self._listened = listened
        self._lock = threading.Lock()
        self._events: deque[StreamEvent] = deque()
        self._got: list[str] = []
        self._kept: str | None = None
        self._cut = False
        self._filled: Outcome[None] | None = None
        self._freed: Outcome[None] | None = None
        self._turn: Turn | None = None
        self._reason: str | None = None
        self._cancel: Callable[[], Any] | None = None
        self._consumer: tuple[int, Any] | None = None
        self._at_end: list[Callable[[], Any]] = []

    @property
    def listened(self) -> bool:
        """Whether somebody takes the events as they come."""
        return self._listened

    # -- the driver's side

    def attach(self, turn: Turn) -> None:
        """The turn has begun: from here on stopping means to stop it."""
        turn.approached = self._approached
        with self._lock:
            self._turn = turn
            reason = self._reason
        if reason is not None:
            turn.request_stop(reason)

    def on_cancel(self, cancel: Callable[[], Any]) -> None:
        """How to stop the driver before its turn has begun."""
        self._cancel = cancel

    async def put(self, event: StreamEvent) -> None:
        """Hand an event over; waits while the consumer is too far behind."""
        while True:
            with self._lock:
                if not self._listened or self._cut or len(self._events) < BUFFER:
                    break
                bell = self._freed = self._freed or Outcome()
            await bell.within(None)
        self.offer(event)

    def offer(self, event: StreamEvent) -> None:
        """Hand an event over without waiting."""
        with self._lock:
            if not self._listened or self._cut:
                return
            self._events.append(event)
            bell, self._filled = self._filled, None
        if bell is not None:
            bell.set_result(None)

    async def drained(self) -> None:
        """Wait until the consumer has taken everything."""
        while True:
            with self._lock:
                if not self._events or self._cut:
                    return
                bell = self._freed = self._freed or Outcome()
            await bell.within(None)

    def settled(self) -> None:
        """What the consumer has got by now is stored."""
        with self._lock:
            self._got.clear()

    def cut(self) -> str:
        """Hand over nothing more; the text that the consumer got since it was last stored."""
        with self._lock:
            self._cut = True
            self._events.clear()
            return "".join(self._got) if self._kept is None else self._kept

    def fail(self, error: BaseException) -> None:
        """The end: an ``error`` event for the consumer, then the error."""
        with self._lock:
            self._cut = False
        self.offer(StreamEvent(type="error", error=error))
        self.outcome.set_error(error)
        self._ended()

    def abandon(self) -> None:
        """The driver is gone: where it gave no outcome, because it never ran, that is the end."""
        if not self.outcome.done:
            self.fail(TurnInterrupted(self._reason or "the event loop was shut down"))

    def finish(self, response: Response) -> None:
        """The end, with the answer."""
        self.outcome.set_result(response)
        self._ended()

    def at_end(self, work: Callable[[], Any]) -> None:
        """Do something, too, once the outcome is given."""
        self._at_end.append(work)

    # -- the consumer's side

    async def take(self) -> StreamEvent | None:
        """The next event; None at the end."""
        self._consumer = _here()
        while True:
            with self._lock:
                if self._events:
                    event = self._events.popleft()
                    if event.type == "text_delta":
                        self._got.append(event.text)
                    bell, self._freed = self._freed, None
                    break
                if self.outcome.done:
                    return None
                filled = self._filled = self._filled or Outcome()
            await filled.within(None)
        if bell is not None:
            bell.set_result(None)
        return event

    def keep(self, text: str) -> None:
        """What the consumer's own consumer got, where it got less."""
        with self._lock:
            self._kept = text

    def stop(self, reason: str) -> None:
        """Ask the driver to stop; from any thread, also from a finalizer."""
        turn = self._turn
        if turn is not None:
            turn.request_stop(reason)
            return
        self._reason = self._reason or reason
        cancel, turn = self._cancel, self._turn
        if turn is not None:
            turn.request_stop(reason)
        elif cancel is not None:
            cancel()

    @property
    def turn(self) -> Turn | None:
        """The turn, once it has begun."""
        return self._turn

    @property
    def driven(self) -> bool:
        """Whether somebody is about to give the outcome."""
        return not self.outcome.done and (self._cancel is not None or self._turn is not None)

    @property
    def reason(self) -> str | None:
        """Why a stop was asked for before the turn had begun."""
        return self._reason

    def _approached(self) -> bool:
        """Whether the calling code is our consumer, which therefore does not listen now."""
        if not self._listened or self._consumer is None or self.outcome.done:
            return False
        thread, task = self._consumer
        here, now = _here()
        if thread != here or (task and task()) is not (now and now()):
            return False
        self.stop("the stream was broken off")
        return True

    def _ended(self) -> None:
        works, self._at_end = self._at_end, []
        for work in works:
            work()
        self._let_go()
        with self._lock:
            bell, self._filled = self._filled, None
        if bell is not None:
            bell.set_result(None)

    def _let_go(self) -> None:
        """Drop what leads back to here, so that a turn goes when it has ended, not at some later
        collection of garbage."""
        self._cancel = None
        if self._turn is not None:
            self._turn.approached = _nobody


def _nobody() -> bool:
    return False


def cancel_soon(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
    """Cancel a task of a loop, from any thread."""
    try:
        loop.call_soon_threadsafe(task.cancel)
    except RuntimeError:
        return  # the loop was closed, and its tasks with it


def _here() -> tuple[int, Any]:
    """The calling thread, and a weak reference to the calling task."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        task = None
    return threading.get_ident(), None if task is None else weakref.ref(task)
