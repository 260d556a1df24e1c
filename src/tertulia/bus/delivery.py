"""How events get from a mailbox to its listener: on its loop, by a task, or in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from inspect import isawaitable, iscoroutinefunction
from typing import Any

from tertulia.bus.base import Listener
from tertulia.bus.mailbox import Call, Loop, Mailbox, Monotonic, log, running_loop, within
from tertulia.bus.threads import InThread

BATCH = 256
"""Events after which the loop gets its turn."""
SLICE = 0.005
"""Seconds after which the loop gets its turn."""
SLOW = 0.05
"""Seconds that a sync listener may block its loop, once."""


def assign(mailbox: Mailbox, fn: Listener, monotonic: Monotonic, told: Any = None) -> None:
    """Give a mailbox its runner: the one that fits the listener and the place of the call.

    `told` is the user's function, where `fn` stands around it.
    """
    shown = fn if told is None else told
    mailbox.name = getattr(shown, "__qualname__", type(shown).__name__)
    call = Call(mailbox, fn, monotonic)
    loop = running_loop()
    if iscoroutinefunction(shown) or iscoroutinefunction(type(shown).__call__):
        mailbox.runner = Unbound(call) if loop is None else InTask(call, loop)
    else:
        mailbox.runner = InThread(call) if loop is None else OnLoop(call, loop)


class OnLoop:
    """Calls a sync listener from its loop, without a task."""

    def __init__(self, call: Call, loop: Loop) -> None:
        self._call = call
        self._loop = loop

    def wake(self, running: Loop | None) -> None:
        if running is self._loop:
            self._loop.call_soon(self._drain, context=self._call.context)
        else:
            _hand_over(self._call, self._loop, self._drain)

    def stop(self) -> None:
        """Nothing: the next drain finds the mailbox empty."""

    def gone(self) -> bool:
        return self._loop.is_closed()

    def beside(self, running: Loop) -> bool:
        return running is not self._loop

    def _drain(self) -> None:
        """Call the listener with what waits, for a while; then let the loop have its turn."""
        mailbox, fn, monotonic = self._call.mailbox, self._call.fn, self._call.monotonic
        now = monotonic()
        until = now + SLICE
        for _ in range(BATCH):
            event = mailbox.take()
            if event is None:
                return
            began = now
            result: Any = None
            try:
                result = fn(event)
            except (Exception, asyncio.CancelledError) as error:
                mailbox.failed(error)
            if result is not None and isawaitable(result):
                first = asyncio.ensure_future(result, loop=self._loop)
                self._move(InTask(self._call, self._loop, first))
                return
            mailbox.done += 1
            now = monotonic()
            if now - began > SLOW:
                self._blocked(now - began)
                return
            if now > until:
                break
        self._loop.call_soon(self._drain, context=self._call.context)

    def _blocked(self, seconds: float) -> None:
        """From now on the listener has a thread of its own."""
        log.warning(
            "the listener %s of %s held up the event loop for %.0f ms; from now on it is called "
            "in a thread of its own. Write it as an async function to keep it on the loop",
            self._call.mailbox.name,
            self._call.mailbox.pattern,
            seconds * 1000,
        )
        self._move(InThread(self._call))

    def _move(self, runner: InTask | InThread) -> None:
        self._call.mailbox.runner = runner
        runner.wake(self._loop)


class InTask:
    """Awaits an async listener in a task, which exists while there is something to deliver."""

    def __init__(self, call: Call, loop: Loop, first: asyncio.Future[Any] | None = None) -> None:
        self._call = call
        self._loop = loop
        self._first = first
        self.task: asyncio.Task[None] | None = None

    def wake(self, running: Loop | None) -> None:
        if running is self._loop:
            self._start()
        else:
            _hand_over(self._call, self._loop, self._start)

    def stop(self) -> None:
        """Cancel the task; not where the listener itself has cancelled its subscription."""
        if within.get() is self._call.mailbox or self._loop.is_closed():
            return
        for future in (self._first, self.task):
            if future is None:
                continue
            if running_loop() is self._loop:
                future.cancel()
            else:
                _hand_over(self._call, self._loop, future.cancel)

    def gone(self) -> bool:
        return self._loop.is_closed()

    def beside(self, running: Loop) -> bool:
        return running is not self._loop

    def _start(self) -> None:
        self.task = self._loop.create_task(self._work(), context=self._call.context)

    async def _work(self) -> None:
        try:
            if self._first is not None:
                await self._handle(_same, self._first)
                self._first = None
            await self._deliver()
        except asyncio.CancelledError:
            self._call.mailbox.leave()
            raise
        finally:
            if self.task is asyncio.current_task():
                self.task = None

    async def _deliver(self) -> None:
        """Call the listener until nothing waits, and let the loop have its turns."""
        mailbox, fn, monotonic = self._call.mailbox, self._call.fn, self._call.monotonic
        until, count = monotonic() + SLICE, 0
        while (event := mailbox.take()) is not None:
            await self._handle(fn, event)
            count += 1
            if count >= BATCH or monotonic() > until:
                await asyncio.sleep(0)
                until, count = monotonic() + SLICE, 0

    async def _handle(self, fn: Callable[[Any], Any], event: Any) -> None:
        try:
            result = fn(event)
            if result is not None and isawaitable(result):
                await result
        except (Exception, asyncio.CancelledError) as error:
            if _being_cancelled():
                raise
            self._call.mailbox.failed(error)
        finally:
            self._call.mailbox.done += 1


class Unbound:
    """An async listener that was registered where no loop ran: the first loop to publish has it."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._warned = False

    def wake(self, running: Loop | None) -> None:
        mailbox = self._call.mailbox
        if running is not None:
            mailbox.runner = InTask(self._call, running)
            mailbox.runner.wake(running)
            return
        mailbox.leave()
        if not self._warned:
            self._warned = True
            log.warning(
                "the async listener %s of %s has no event loop yet, so its events wait; "
                "call listen where a loop runs",
                mailbox.name,
                mailbox.pattern,
            )

    def stop(self) -> None:
        """Nothing runs yet."""

    def gone(self) -> bool:
        return False

    def beside(self, running: Loop) -> bool:
        return False


def _same(awaitable: Any) -> Any:
    return awaitable


def _being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _hand_over(call: Call, loop: Loop, fn: Callable[[], Any]) -> None:
    """Call a function on a loop that may be another thread's; without that loop, drop out."""
    try:
        loop.call_soon_threadsafe(fn, context=call.context)
    except RuntimeError:
        call.mailbox.drop_out("its event loop is closed")
