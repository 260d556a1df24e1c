"""The switchboard: opens channels to other workers, and runs the handlers of those they open."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from time import monotonic

import msgspec

from tertulia.cluster.calls import CLOSING, Call, Handler
from tertulia.cluster.channels import Channel
from tertulia.cluster.frames import KIND_LIMIT
from tertulia.cluster.lines import NotDelivered, check_size
from tertulia.cluster.links import BEAT, Link
from tertulia.cluster.pipes import Pipe
from tertulia.doors import Outcome
from tertulia.errors import InvalidInput, UsageError
from tertulia.loop_thread import LoopThread

_log = logging.getLogger("tertulia.cluster")

CHANNEL_LIMIT = 10_000
"""Channels of one worker at a time; more are refused."""
LINK_LIMIT = 10_000
"""Links of one worker at a time; more are refused."""
OPENING = 2.0
"""Seconds until a worker that gives no sign of life is lost."""
ENDING = 5.0
"""Seconds that handlers have to end when the switchboard is closed."""


class SwitchboardStats(msgspec.Struct, frozen=True):
    """What a switchboard has, and has counted since its start."""

    links: int
    channels: int
    handlers: int
    opened: int
    """Channels opened from here."""
    accepted: int
    """Channels opened from elsewhere."""
    refused: int
    """Channels from elsewhere that were not accepted."""
    failed: int
    """Handlers that raised."""
    lost: int
    """Links that were lost; also those let go because nobody used them."""
    malformed: int
    """Messages that were no frame, and were dropped."""


class Switchboard:
    """Streams to other workers and from them, over the first pipe that reaches them.

    `worker` is the 16-byte uid of this worker. A pipe serves one switchboard. Channels may be
    opened from any thread or loop; handlers run on the loop on which `start` was awaited. Closed
    while a channel is open, both of its ends are told.
    """

    def __init__(self, worker: bytes, *pipes: Pipe, limit: int = CHANNEL_LIMIT) -> None:
        if len(worker) != 16:
            raise InvalidInput(f"a worker's uid has 16 bytes, not {len(worker)}")
        self.worker = worker
        self._pipes = pipes
        self._limit = limit
        self._handlers: dict[str, Handler] = {}
        self._lock = threading.Lock()
        self._links: set[Link] = set()
        self._running: set[Call] = set()
        self._quiet: Outcome[None] | None = None
        self._thread: LoopThread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._context = contextvars.Context()
        self._closing = False
        self._opened = self._accepted = self._refused = self._failed = 0
        self._lost = self._malformed = 0

    # -- for whoever uses it

    def serve(self, kind: str, handler: Handler) -> None:
        """Run `handler(head, channel)` as a task for each channel of this kind that others open.

        The channel is closed when it returns. It is cancelled when the other side closes the
        channel or is lost. What it raises is logged, and the other side is told the type only.
        Raises InvalidInput, and UsageError for a kind that is served already.
        """
        _check_kind(kind)
        if kind in self._handlers:
            raise UsageError(f"channels of the kind {kind!r} are served already")
        self._handlers[kind] = handler

    async def start(self) -> None:
        """Listen for other workers; handlers run on this loop, in this context.

        Raises UsageError the second time, and after `close`.
        """
        if self._thread is not None or self._closing:
            raise UsageError("a switchboard is started once; make a new one")
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()
        thread = self._thread = LoopThread("tertulia-peers")
        thread.loop.call_soon_threadsafe(lambda: thread.start(self._beat()))
        for pipe in self._pipes:
            await pipe.start(self)

    async def open(self, worker: bytes, kind: str, head: bytes = b"") -> Channel:
        """Open a channel to a worker; `head`, at most 4 MB, is what its handler is called with.

        It takes no round trip to a worker that was heard of lately. Another is waited for, 2 s at
        most, with the head on its way. A refusal is told by the channel.
        Raises WorkerLost where the worker cannot be reached; then its handler may have begun, but
        for `NotDelivered`, which is also raised where too many channels are open. Raises
        InvalidInput, and UsageError before `start` and after `close`.
        """
        _check_kind(kind)
        check_size(head)
        self._check_may_open(worker)
        until = monotonic() + OPENING
        why: list[str] = []
        for pipe in self._pipes:
            try:
                channel = await (await pipe.reach(worker, until)).open(kind, bytes(head), until)
            except NotDelivered as error:
                why.append(str(error))
            else:
                self._opened += 1
                return channel
        told = "; ".join(why) or "this worker has no way to others"
        raise NotDelivered(f"worker {worker.hex()} cannot be reached: {told}")

    async def close(self) -> None:
        """Close all channels, cancel the handlers, and wait for them; more than once is once."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
        with self._lock:
            running = tuple(self._running)
        for call in running:
            call.cancel_soon()
        if not await self._ended().within(ENDING):
            _log.error("%d handlers did not end when they were cancelled", len(self._running))
        for link in self._all():
            link.lose(CLOSING)
        for pipe in self._pipes:
            await pipe.close()
        if self._thread is not None:
            self._thread.stop()

    @property
    def channels(self) -> int:
        """How many channels are open now."""
        return sum(len(link.channels) for link in self._all())

    def stats(self) -> SwitchboardStats:
        """What it has and has counted."""
        return SwitchboardStats(
            links=len(self._links),
            channels=self.channels,
            handlers=len(self._running),
            opened=self._opened,
            accepted=self._accepted,
            refused=self._refused,
            failed=self._failed,
            lost=self._lost,
            malformed=self._malformed,
        )

    # -- for its pipes and links

    @property
    def thread(self) -> LoopThread:
        """Where a pipe may run tasks. Raises UsageError before `start`."""
        if self._thread is None:
            raise UsageError("the switchboard is not started")
        return self._thread

    def watch(self, link: Link) -> bool:
        """Keep the beat of a link until it is lost; False where there are too many."""
        with self._lock:
            if self._closing or len(self._links) >= LINK_LIMIT:
                return False
            self._links.add(link)
            return True

    def unwatch(self, link: Link) -> None:
        """The link is lost."""
        with self._lock:
            self._links.discard(link)
            self._lost += 1

    def malformed(self) -> None:
        """Count what came and is no frame."""
        self._malformed += 1

    def refusal(self, kind: str) -> str | None:
        """Why a channel of a kind cannot be opened here; None where it can."""
        if self._closing or self._loop is None or self._loop.is_closed():
            reason = CLOSING
        elif kind not in self._handlers:
            reason = "the worker does not serve this kind of channel"
        elif self.channels >= self._limit:
            reason = "the worker has too many channels"
        else:
            return None
        self._refused += 1
        return reason

    def begin(self, channel: Channel, kind: str, head: bytes) -> None:
        """Run the handler of a channel."""
        loop = self._loop
        if loop is None or self._closing:
            return
        call = Call(self, loop, self._handlers[kind], kind, channel)
        try:
            loop.call_soon_threadsafe(call.start, head, context=self._context)
        except RuntimeError:
            _log.error("the loop of the switchboard was closed before it; await close() first")
            return
        self._accepted += 1
        channel.on_over = call.cancel_soon

    # -- inside

    def _check_may_open(self, worker: bytes) -> None:
        if worker == self.worker:
            raise InvalidInput("this is the worker itself; do here what its handler would do")
        if self._thread is None or self._closing:
            raise UsageError("the switchboard is not started, or closed")
        if self.channels >= self._limit:
            raise NotDelivered("too many channels are open here; close some")

    def _all(self) -> tuple[Link, ...]:
        with self._lock:
            return tuple(self._links)

    async def _beat(self) -> None:
        """Keep the beat of all links."""
        last = monotonic()
        while True:
            await asyncio.sleep(BEAT)
            now = monotonic()
            late = now - last > 3 * BEAT  # this process stood still, and has not read since
            last = now
            for link in self._all():
                try:
                    link.beat(now, late=late)
                except Exception as error:  # one pipe may fail; the beat of the others goes on
                    _log.error("the beat of a link failed", exc_info=error)

    def _ended(self) -> Outcome[None]:
        """Given when no handler runs any more."""
        with self._lock:
            quiet = self._quiet = Outcome()
            if not self._running or self._loop is None or self._loop.is_closed():
                quiet.set_result(None)
            return quiet

    def entered(self, call: Call) -> bool:
        """A handler is about to begin; False where it must not."""
        with self._lock:
            if not self._closing:
                self._running.add(call)
            return not self._closing

    def left(self, call: Call, *, failed: bool) -> None:
        """A handler has ended."""
        with self._lock:
            self._running.discard(call)
            self._failed += failed
            if self._quiet is not None and not self._running:
                self._quiet.set_result(None)


def _check_kind(kind: str) -> None:
    if not 0 < len(kind) <= KIND_LIMIT or not kind.isascii():
        raise InvalidInput(f"a kind of channel has 1 to {KIND_LIMIT} ASCII letters, not {kind!r}")
