"""The doors between threads, event loops and synchronous callers: one mechanism.

The core is asynchronous and uses no asyncio primitive: it waits on an `Outcome` only. Under an
event loop an outcome is awaited like a future of that loop. From synchronous code `call` steps
the coroutine itself and blocks the thread on the outcome it waits for. So a synchronous door
works in a script, on a thread whose loop is running, and from many threads, without a loop or a
thread of its own.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar, cast

T = TypeVar("T")
Loop = asyncio.AbstractEventLoop
Waiter = tuple[Loop, "asyncio.Future[None]"]


class _Thread(threading.local):
    depth = 0
    """How many calls of `call` this thread is in."""


_thread = _Thread()


def current_loop() -> Loop | None:
    """The event loop that runs this code, or None where `call` or no loop does."""
    if _thread.depth:
        return None
    return asyncio._get_running_loop()  # pyright: ignore[reportPrivateUsage]


def blocked_loop() -> Loop | None:
    """The event loop that a synchronous call on this thread keeps from running, if any."""
    if not _thread.depth:
        return None
    return asyncio._get_running_loop()  # pyright: ignore[reportPrivateUsage]


class Outcome(Generic[T]):
    """A value or an error that some thread will give, once; any thread or loop may wait for it."""

    __slots__ = ("_done", "_error", "_lock", "_value", "_waiters")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._done = False
        self._value: T | None = None
        self._error: BaseException | None = None
        self._waiters: dict[Waiter | threading.Lock, None] = {}

    @property
    def done(self) -> bool:
        """Whether it was given."""
        return self._done

    def set_result(self, value: T) -> None:
        """Give the value; ignored if something was given before."""
        self._settle(value, None)

    def set_error(self, error: BaseException) -> None:
        """Give an error; ignored if something was given before."""
        self._settle(None, error)

    def result(self) -> T:
        """What was given; call it only when `done`."""
        if self._error is not None:
            raise self._error
        return cast("T", self._value)

    def wait(self, timeout: float | None = None) -> bool:
        """Block this thread until it is given; False when the seconds ran out first."""
        gate = threading.Lock()
        gate.acquire()
        if not self._enlist(gate):
            return True
        try:
            return gate.acquire(timeout=-1 if timeout is None else max(timeout, 0))
        finally:
            self._leave(gate)

    def __await__(self) -> Generator[Any, Any, T]:
        yield from self.within(None).__await__()
        return self.result()

    async def within(self, seconds: float | None) -> bool:
        """Wait at most so many seconds; False when they ran out first."""
        if self._done:
            return True
        loop = current_loop()
        if loop is None:
            return bool(await _Block(self, seconds))
        future: asyncio.Future[None] = loop.create_future()
        waiter = (loop, future)
        if not self._enlist(waiter):
            return True
        timer = None if seconds is None else loop.call_later(max(seconds, 0), _wake, future)
        try:
            await future
        finally:
            if timer is not None:
                timer.cancel()
            self._leave(waiter)
        return self._done

    def _enlist(self, waiter: Waiter | threading.Lock) -> bool:
        with self._lock:
            if not self._done:
                self._waiters[waiter] = None
            return not self._done

    def _leave(self, waiter: Waiter | threading.Lock) -> None:
        """Forget one that waits no more; what was given has forgotten them all."""
        if not self._done:
            with self._lock:
                self._waiters.pop(waiter, None)

    def _settle(self, value: T | None, error: BaseException | None) -> None:
        with self._lock:
            if self._done:
                return
            self._value, self._error, self._done = value, error, True
            waiters, self._waiters = self._waiters, {}
        for waiter in waiters:
            if isinstance(waiter, tuple):
                _call_soon(waiter[0], waiter[1])
            else:
                waiter.release()


class _Block:
    """What a coroutine yields to `call` when it has to wait."""

    __slots__ = ("outcome", "seconds")

    def __init__(self, outcome: Outcome[Any], seconds: float | None) -> None:
        self.outcome = outcome
        self.seconds = seconds

    def __await__(self) -> Generator[_Block, bool, bool]:
        return (yield self)


def call(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine of the core to its end on this thread, blocking where it waits.

    Raises RuntimeError when the coroutine needs an event loop of its own.
    """
    _thread.depth = _thread.depth + 1
    try:
        sent: bool | None = None
        stopped: BaseException | None = None
        while True:
            step = coroutine.send(sent) if stopped is None else coroutine.throw(stopped)
            stopped = None
            if not isinstance(step, _Block):
                coroutine.close()
                raise RuntimeError("this call needs an event loop; await its asynchronous twin")
            try:
                sent = step.outcome.wait(step.seconds)
            except BaseException as error:
                stopped = error  # Ctrl-C: the coroutine has to put its things in order
    except StopIteration as stop:
        return cast("T", stop.value)
    finally:
        _thread.depth -= 1


async def protected(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run work to its end, also where the caller is cancelled meanwhile."""
    loop = current_loop()
    if loop is None:
        await work()
        return
    task = loop.create_task(work())
    _protected.add(task)
    task.add_done_callback(_protected.discard)
    await asyncio.shield(task)


_protected: set[asyncio.Task[None]] = set()


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _call_soon(loop: Loop, future: asyncio.Future[None]) -> None:
    if asyncio._get_running_loop() is loop:  # pyright: ignore[reportPrivateUsage]
        _wake(future)
        return
    try:
        loop.call_soon_threadsafe(_wake, future)
    except RuntimeError:
        return  # the loop was closed, and whoever waited went with it
