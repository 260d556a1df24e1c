"""The life of a client session in this process: who holds it, what runs of it, and its end."""

from __future__ import annotations

import asyncio
import logging
import threading
import traceback
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from inspect import isawaitable
from typing import TYPE_CHECKING, Any

from tertulia.agents.exchange import Exchange
from tertulia.bus import BusEvent
from tertulia.doors import Outcome, current_loop
from tertulia.errors import ClientDisposed
from tertulia.swarm.oversight import SwarmOversight
from tertulia.turns import own_turn

if TYPE_CHECKING:
    from tertulia.swarm.client import ClientSession
    from tertulia.swarm.desk import Desk

_log = logging.getLogger("tertulia.swarm")

ENDING = 5.0
"""Seconds that a disposal waits for the turns that it has stopped."""
CALLING = 5.0
"""Seconds that the callbacks of a disposal may take."""
HANDING = 1.0
"""Seconds that a disposal waits for the listeners to get its event."""
MAX_TOLD = 1_000
"""Callbacks that wait for somebody to use the session; the oldest are dropped."""

Forget = Callable[["ClientSession"], None]
_beginning: ContextVar[tuple[Life, ...]] = ContextVar("tertulia_beginning", default=())
"""The lives whose `on_init` the calling code is a part of."""
_ending: ContextVar[tuple[Life, ...]] = ContextVar("tertulia_ending", default=())
"""The lives whose end the calling code is a part of."""


class Life:
    """Begins with the first use of a client session, and ends once, with its disposal."""

    def __init__(self, desk: Desk, forget: Forget | None) -> None:
        self._desk = desk
        self._forget = forget
        self._lock = threading.Lock()
        self.holders = 0
        self.disposed: Outcome[None] | None = None
        self.closed = False
        """Whether it is disposed because its runtime is closed."""
        self._begun: Outcome[None] | None = None
        self.running: dict[Exchange, SwarmOversight] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._asking: dict[
            asyncio.Timeout, tuple[asyncio.Task[Any] | None, asyncio.AbstractEventLoop]
        ] = {}
        """What is under way before a turn has begun, or beside turns."""
        self._told: deque[tuple[str, BusEvent]] = deque(maxlen=MAX_TOLD)
        """Callbacks that are yet to be called."""
        self._used = desk.host.clock.monotonic()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_loop: asyncio.AbstractEventLoop | None = None
        self._waits_for: Life | None = None
        """The life that our `on_init` waits for."""
        self.watch()

    def check(self) -> None:
        """Raise ClientDisposed after the end."""
        if self.disposed is not None:
            desk = self._desk
            again = f"runtime.client_session({desk.client_id!r}, {desk.swarm.name!r})"
            raise ClientDisposed(
                f"client session {desk.client_id!r} of swarm {desk.swarm.name!r} was disposed"
                + (
                    f" when its runtime was closed; make a new one: Runtime(…), then {again}"
                    if self.closed
                    else f"; get a new one: {again}"
                ),
                session_id=desk.session.id,
            )

    # -- holding

    def hold(self) -> None:
        """One holder more. Raises ClientDisposed."""
        with self._lock:
            self.check()
            self.holders += 1

    def let_go(self) -> bool:
        """One holder less; whether it was the last one."""
        with self._lock:
            self.holders -= 1
            return self.holders == 0

    # -- use

    @asynccontextmanager
    async def asking(self) -> AsyncGenerator[None]:
        """What is done inside, which may take long, ends with ClientDisposed at the disposal."""
        self.check()
        limit = asyncio.timeout(None)
        place = asyncio.current_task(), asyncio.get_running_loop()
        try:
            async with limit:
                self._asking[limit] = place
                try:
                    yield
                finally:
                    del self._asking[limit]
        except TimeoutError:
            if limit.expired():
                self.check()
            raise

    def _end_asking(self, disposer: asyncio.Task[Any] | None) -> None:
        """End what is done inside of `asking`, but for who disposes it from there."""
        for limit, (task, loop) in list(self._asking.items()):
            if task is not disposer:
                with suppress(RuntimeError):  # a loop that was closed ended it
                    loop.call_soon_threadsafe(self._expire, limit, loop)

    def _expire(self, limit: asyncio.Timeout, loop: asyncio.AbstractEventLoop) -> None:
        if limit in self._asking:
            limit.reschedule(loop.time())

    def use(self) -> None:
        """It is used, here or at another worker. Raises ClientDisposed."""
        self.check()
        self._used = self._desk.host.clock.monotonic()
        self.watch()

    async def begin(self) -> None:
        """It is about to be used. Calls `on_init` before all else, once. Raises ClientDisposed.

        What another worker serves is used there: here `on_init` is not called for that.
        """
        self.use()
        if self._begun is None:
            await self._begin()
        elif not self._begun.done:
            if self._waits_for_us():
                return
            await self._wait_for(self._begun)
        if self._told:
            await self.call_told()
        self.check()

    async def _begin(self) -> None:
        begun = self._begun = Outcome()
        token = _beginning.set((*_beginning.get(), self))
        try:
            async with self.asking():
                await self.call("on_init", self._desk.feed.event("session", "init"))
        finally:
            _beginning.reset(token)
            begun.set_result(None)

    def _waits_for_us(self) -> bool:
        """Whether `on_init`, which is not over, waits for what the calling code does."""
        ours = _beginning.get()
        life: Life | None = self
        while life is not None and life not in ours:
            life = life._waits_for
        return life is not None

    async def _wait_for(self, begun: Outcome[None]) -> None:
        waiting = _beginning.get()
        for life in waiting:
            life._waits_for = self
        try:
            async with self.asking():
                await begun
        finally:
            for life in waiting:
                life._waits_for = None

    def enter(self, exchange: Exchange, oversight: SwarmOversight) -> None:
        """A turn is about to run. Raises ClientDisposed."""
        self.check()
        self.running[exchange] = oversight
        exchange.at_end(lambda: self.running.pop(exchange, None))

    async def leave(self, exchange: Exchange) -> None:
        """A turn has ended, or whoever asked for it waits no longer."""
        if not exchange.driven:
            self.running.pop(exchange, None)
        self._used = self._desk.host.clock.monotonic()
        self.tell_changes()
        if self._told:
            await self.call_told()

    async def heard(self) -> None:
        """Let listeners that are quick hear what was published, before the caller goes on."""
        if self._desk.bus.subscriptions:
            await asyncio.sleep(0)

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something as a task of this session."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("a task of a client session failed", exc_info=task.exception())

    def stop_current(self, reason: str) -> Exchange | None:
        """Ask the turn that runs to stop; where none has begun yet, the one that is about to."""
        waiting = list(self.running)
        begun = [exchange for exchange in waiting if exchange.turn is not None]
        current = next(iter([*begun, *waiting]), None)
        if current is not None:
            current.stop(reason)
        return current

    def stop(self, reason: str) -> list[Exchange]:
        """Ask what runs to stop."""
        stopped = list(self.running)
        for exchange in stopped:
            exchange.stop(reason)
        return stopped

    # -- callbacks

    def later(self, name: str, event: BusEvent) -> None:
        """Call a callback at the next opportunity to wait for it."""
        if getattr(self._desk.swarm.callbacks, name) is not None:
            self._told.append((name, event))

    def tell_changes(self) -> None:
        """Note the changes of agent for their callback."""
        changes = self._desk.feed.changes
        while changes:
            self.later("on_agent_changed", changes.popleft())

    async def call_told(self) -> None:
        """Call the callbacks that were noted."""
        while self._told:
            name, event = self._told.popleft()
            await self.call(name, event)

    async def call(self, name: str, event: BusEvent) -> None:
        """Call a callback; that it raised is logged, without the text, and changes nothing."""
        callback = getattr(self._desk.swarm.callbacks, name)
        if callback is None:
            return
        try:
            made = callback(self._desk.client, event)
            if isawaitable(made):
                await made
        except Exception as error:
            _log.error(
                "%s of swarm %r raised %s, at\n%s",
                name,
                self._desk.swarm.name,
                type(error).__name__,
                "".join(traceback.format_tb(error.__traceback__)),
            )

    # -- the end

    async def dispose(self) -> None:
        """End it, once; whoever comes later waits for the end, unless it would wait for itself."""
        with self._lock:
            mine = self.disposed is None
            self.disposed = disposed = self.disposed or Outcome()
        inside = own_turn(self._desk.session._conversation) is not None  # pyright: ignore[reportPrivateUsage]
        loop = current_loop()
        if mine:
            if self._forget is not None:
                self._forget(self._desk.client)
            self._end_asking(None if loop is None else asyncio.current_task())
            if loop is None:
                await self._end(disposed)  # the runtime is closed when the process ends
            else:
                self.start(self._end(disposed))
        if loop is None or not (inside or self in _ending.get()):
            await disposed

    async def _end(self, disposed: Outcome[None]) -> None:
        desk = self._desk
        token = _ending.set((*_ending.get(), self))
        try:
            if self._timer is not None:
                self._timer.cancel()
            desk.seat.hang_up()
            stopped = self.stop("the client session was disposed")
            for exchange in stopped:
                await exchange.outcome.within(ENDING)
            event = desk.feed.event("session", "dispose")
            desk.bus.publish(event)
            if current_loop() is None:
                await self._last_calls(event)
            else:
                await desk.bus.drain(HANDING, client_id=desk.client_id)
                await self._last_calls_in_time(event)
            await desk.session.close()
            if not self.closed:  # the seats of a worker that goes are free
                await desk.seat.leave()
        finally:
            _ending.reset(token)
            desk.release()
            disposed.set_result(None)

    async def _last_calls(self, event: BusEvent) -> None:
        if self._begun is not None:
            await self.call_told()
        await self.call("on_dispose", event)

    async def _last_calls_in_time(self, event: BusEvent) -> None:
        """Call the callbacks of the end; one that does not return keeps nobody waiting."""
        limit = asyncio.timeout(CALLING)
        try:
            async with limit:
                await self._last_calls(event)
        except TimeoutError:
            if not limit.expired():
                raise
            told = "the callbacks of swarm %r took more than %g seconds at a disposal"
            _log.error(told, self._desk.swarm.name, CALLING)

    # -- nobody uses it

    def watch(self) -> None:
        """Dispose it when nobody has used it for a while, by a timer of a loop that runs."""
        limit, loop = self._desk.swarm.limits.idle_timeout, current_loop()
        if limit is None or loop is None or self.disposed is not None:
            return
        if self._timer is not None:
            if self._timer_loop is loop or (self._timer_loop and self._timer_loop.is_running()):
                return
            self._timer.cancel()
        self._timer_loop = loop
        self._timer = loop.call_later(limit, self._look, limit)

    def _look(self, limit: float) -> None:
        idle = self._desk.host.clock.monotonic() - self._used
        desk = self._desk
        busy = self.holders or self.running or desk.connected or desk.expected or desk.seat.asked
        if self.disposed is not None:
            return
        if busy or idle < limit:
            left = limit if busy else limit - idle
            self._timer = asyncio.get_running_loop().call_later(left, self._look, limit)
            return
        self.start(self.dispose())
