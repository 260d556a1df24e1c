"""What the callers of a bus hold: a subscription, a wait for one event, an iterator of events."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from concurrent.futures import Future
from inspect import isawaitable
from types import TracebackType
from typing import Any, Self

from tertulia.bus.base import BusEvent, Filter, Listener
from tertulia.bus.delivery import BATCH
from tertulia.bus.mailbox import Loop, Mailbox, running_loop
from tertulia.errors import UsageError


class Subscription:
    """A listener's place on the bus, until `cancel`; as a context manager it cancels at the end."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox

    @property
    def client_id(self) -> str:
        """The client that is listened to, or "*"."""
        return self._mailbox.client_id

    @property
    def pattern(self) -> str:
        """The pattern of topics."""
        return self._mailbox.pattern

    @property
    def lost(self) -> int:
        """How many events were dropped, because as many as may wait were waiting already."""
        return self._mailbox.lost

    @property
    def cancelled(self) -> bool:
        """Whether it has ended: by `cancel`, with the bus, or with its loop."""
        return self._mailbox.closed

    def cancel(self) -> None:
        """End it; what waits is dropped, and an async listener that is running is cancelled.

        From any thread, and as often as one likes. A listener that cancels itself runs to its end.
        """
        self._mailbox.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.cancel()


class Once:
    """The first event that fits: await it, from any loop. It has ended when it came."""

    def __init__(self, mailbox: Mailbox, wanted: Filter | None, fn: Listener | None) -> None:
        self._mailbox = mailbox
        self._filter = wanted
        self._fn = fn
        self._found: Future[BusEvent] = Future()
        mailbox.on_close = self._found.cancel

    def cancel(self) -> None:
        """Wait no longer; who awaits it gets a UsageError. From any thread."""
        self._mailbox.close()

    def __await__(self) -> Generator[Any, None, BusEvent]:
        return self._wait().__await__()

    async def _wait(self) -> BusEvent:
        """The event; a wait that is cancelled, as by a timeout, ends it."""
        try:
            return await asyncio.wrap_future(self._found)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and not task.cancelling():
                raise UsageError("this wait for an event was cancelled before it came") from None
            self.cancel()
            raise

    def look(self, event: BusEvent) -> Any:
        """Whether this is the one; called with each event whose topic fits."""
        if self._found.done() or (self._filter is not None and not self._filter(event)):
            return None
        if not self._found.set_running_or_notify_cancel():
            return None
        self._found.set_result(event)
        result: Any = None
        try:
            result = None if self._fn is None else self._fn(event)
        finally:
            if not isawaitable(result):
                self._mailbox.close()
        return self._finish(result) if isawaitable(result) else None

    async def _finish(self, result: Any) -> None:
        try:
            await result
        finally:
            self._mailbox.close()


class BusEvents:
    """Events as they come, for one reader; also an async context manager that ends it.

    It has ended after `aclose`, with the bus, and when nothing refers to it any more.
    """

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox
        self._reader = Reader()
        self._count = 0
        mailbox.runner = self._reader
        mailbox.name = "events()"

    @property
    def lost(self) -> int:
        """How many events were dropped, because as many as may wait were waiting already."""
        return self._mailbox.lost

    def __aiter__(self) -> BusEvents:
        return self

    async def __anext__(self) -> BusEvent:
        """The next event. Raises UsageError when another task is waiting for it."""
        self._count += 1
        if self._count % BATCH == 0:
            await asyncio.sleep(0)
        while not self._mailbox.closed:
            if self._mailbox.queue and (event := self._mailbox.take()) is not None:
                self._mailbox.done += 1
                return event
            await self._reader.wait(self._mailbox)
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """End it; what waits is dropped."""
        self._mailbox.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        self._mailbox.close()


class Reader:
    """The runner of an iterator: it only wakes who waits for the next event."""

    def __init__(self) -> None:
        self._waiter: asyncio.Future[None] | None = None
        self._loop: Loop | None = None

    async def wait(self, mailbox: Mailbox) -> None:
        """Until there may be something to take. Raises UsageError when another task waits."""
        if self._waiter is not None:
            raise UsageError("one task reads these events already; call bus.events() once for each")
        self._loop = asyncio.get_running_loop()
        waiter = self._waiter = self._loop.create_future()
        try:
            if mailbox.rest() and not mailbox.closed:
                await waiter
        finally:
            self._waiter = None

    def wake(self, running: Loop | None) -> None:
        waiter = self._waiter
        if waiter is None:
            return
        loop = waiter.get_loop()
        if running is loop:
            _wake(waiter)
        elif not loop.is_closed():
            loop.call_soon_threadsafe(_wake, waiter)

    def stop(self) -> None:
        """Wake who waits, to find that it has ended."""
        self.wake(running_loop())

    def gone(self) -> bool:
        return self._loop is not None and self._loop.is_closed()

    def beside(self, running: Loop) -> bool:
        return self._loop is not None and self._loop is not running


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
