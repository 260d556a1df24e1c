"""Turns as their consumers see them: streams of events, or only the answer."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterator, Generator, Iterator
from types import TracebackType
from typing import NoReturn, Self

from tertulia import doors
from tertulia.admission import AlreadyDone
from tertulia.agents.driving import Begun, begin, drive
from tertulia.agents.exchange import Exchange, cancel_soon
from tertulia.agents.loop import Plan
from tertulia.agents.portal import hold, portal
from tertulia.agents.repeats import give_earlier, repeated
from tertulia.agents.response import Response, StreamEvent
from tertulia.errors import TurnInterrupted, UsageError
from tertulia.turns import own_turn

_BROKEN_OFF = "the stream was broken off"
_CANCELLED = "cancelled"


async def respond(plan: Plan, exchange: Exchange | None = None) -> Response:
    """Run a turn in a task of its own; cancelling the caller stops it, and waits for its end.

    `exchange` is one to stop it by.
    """
    _approach(plan)
    exchange = exchange or Exchange(listened=False)
    _start(plan, exchange)
    try:
        return await exchange.outcome
    except asyncio.CancelledError:
        exchange.stop(_CANCELLED)
        await exchange.outcome.within(None)
        raise


def respond_sync(plan: Plan, twin: str, depth: int) -> Response:
    """Run a turn and block until its answer.

    `twin` is what to await instead on a loop; `depth` is how many calls ago the caller called.
    """
    _warn_of_loop(twin, depth + 2)
    exchange = Exchange(listened=False)
    _start_elsewhere(plan, exchange)
    try:
        exchange.outcome.wait()
    except BaseException:
        exchange.stop(_CANCELLED)
        raise
    return exchange.outcome.result()


class _Consumer:
    """What both streams share: the exchange, and the answer at the end."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._exchange = Exchange(listened=True)
        self._started = False
        self._stopped = False

    @property
    def response(self) -> Response:
        """The answer. Raises UsageError before the end, and what the turn raised."""
        if not self._exchange.outcome.done:
            raise UsageError("the stream has not ended; iterate over all of it first")
        return self._exchange.outcome.result()

    def keep(self, text: str) -> None:
        """Say what a person really got of the text since the last tool call: an interrupted turn
        keeps that, instead of all that was taken from the stream."""
        self._exchange.keep(text)

    def _stop(self, reason: str) -> None:
        self._stopped = True
        if self._started and not self._exchange.outcome.done:
            self._exchange.stop(reason)

    def _at_end(self) -> None:
        """Raise what the turn raised, but for the stop that this consumer asked for."""
        try:
            self._exchange.outcome.result()
        except TurnInterrupted:
            if not self._stopped:
                raise

    def __del__(self) -> None:
        if getattr(self, "_started", False):
            self._stop(_BROKEN_OFF)


class AsyncStream(_Consumer):
    """One turn as it happens: ``async for event in session.stream_async(…)``.

    Awaiting it first gives the same stream. The turn begins with the first event; who stops
    early interrupts it, and what was handed out by then is kept. A turn that fails gives an
    ``error`` event, then raises.
    """

    def __await__(self) -> Generator[None, None, AsyncStream]:
        return self
        yield

    def __aiter__(self) -> AsyncIterator[StreamEvent]:
        return self

    async def __anext__(self) -> StreamEvent:
        if self._stopped and not self._started:
            raise StopAsyncIteration
        if not self._started:
            self._started = True
            _approach(self._plan)
            _start(self._plan, self._exchange)
        try:
            event = await self._exchange.take()
        except asyncio.CancelledError:
            self._stop(_CANCELLED)
            await self._exchange.outcome.within(None)
            raise
        if event is None or (self._stopped and event.type == "error"):
            self._at_end()
            raise StopAsyncIteration
        return event

    async def cancel(self) -> None:
        """Stop the turn and wait until it is closed; what was handed out is kept."""
        self._stop(_BROKEN_OFF)
        if self._started:
            await self._exchange.outcome.within(None)

    aclose = cancel

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.cancel()

    def __iter__(self) -> NoReturn:
        raise UsageError("this stream is asynchronous: write `async for`, or call stream()")


class Stream(_Consumer):
    """One turn as it happens: ``for event in session.stream(…)``. As `AsyncStream` otherwise."""

    def __iter__(self) -> Iterator[StreamEvent]:
        return self

    def __next__(self) -> StreamEvent:
        if self._stopped and not self._started:
            raise StopIteration
        if not self._started:
            _warn_of_loop("stream_async", 3)
            self._started = True
            _start_elsewhere(self._plan, self._exchange)
        try:
            event = doors.call(self._exchange.take())
        except BaseException:
            self._stop(_CANCELLED)
            raise
        if event is None or (self._stopped and event.type == "error"):
            self._at_end()
            raise StopIteration
        return event

    def cancel(self) -> None:
        """Stop the turn and wait until it is closed; what was handed out is kept."""
        self._stop(_BROKEN_OFF)
        if self._started:
            self._exchange.outcome.wait()

    close = cancel

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.cancel()

    def __aiter__(self) -> NoReturn:
        raise UsageError("this stream is synchronous: write `for`, or call stream_async()")

    def __await__(self) -> NoReturn:
        raise UsageError("this stream is synchronous: leave out the await, or call stream_async()")


def _approach(plan: Plan) -> None:
    """End a stream that the caller broke off, which only its own task can be known by."""
    conversation = plan.session._conversation  # pyright: ignore[reportPrivateUsage]
    if own_turn(conversation) is None:
        conversation.approach()


def _start(plan: Plan, exchange: Exchange) -> None:
    """Start the turn as a task of the running loop."""

    async def work() -> None:
        begun = await _begun(plan, exchange)
        if begun is not None:
            await drive(begun, plan, exchange)

    task = hold(work)
    task.add_done_callback(lambda _: exchange.abandon())
    loop = asyncio.get_running_loop()
    exchange.on_cancel(lambda: cancel_soon(loop, task))


def _start_elsewhere(plan: Plan, exchange: Exchange) -> None:
    """Begin the turn on this thread, and drive it on the portal's."""
    begun = doors.call(_begun(plan, exchange))
    if begun is not None:
        try:
            portal().start(lambda: drive(begun, plan, exchange), exchange.abandon)
        except RuntimeError as error:
            if not begun.joined:
                doors.call(begun.turn.fail(error))
            exchange.fail(error)


async def _begun(plan: Plan, exchange: Exchange) -> Begun | None:
    """The turn; None where there is nothing to drive: the exchange has the outcome then."""
    try:
        return None if await repeated(plan, exchange) else await begin(plan)
    except AlreadyDone as done:
        await give_earlier(plan, exchange, done.request)
    except asyncio.CancelledError:
        reason = exchange.reason or _CANCELLED
        exchange.fail(TurnInterrupted(reason, session_id=plan.session.id))
    except BaseException as error:
        exchange.fail(error)
    return None


_warned: set[str] = set()


def _warn_of_loop(twin: str, level: int) -> None:
    """Say once that a synchronous call blocks the event loop of this thread."""
    portal().check_caller()
    if doors.current_loop() is None or twin in _warned:
        return
    _warned.add(twin)
    warnings.warn(
        f"a synchronous call on an event loop's own thread blocks that loop; use {twin}",
        RuntimeWarning,
        stacklevel=level,
    )
