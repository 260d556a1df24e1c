"""A connection to NATS that any thread may use, and that comes back for as long as it is wanted."""

from __future__ import annotations

import atexit
import itertools
import logging
import os
import re
from collections.abc import Callable
from importlib.util import find_spec
from threading import Lock
from weakref import WeakSet

from tertulia.bus.nats_address import parse, tls_context
from tertulia.bus.nats_keys import read_key
from tertulia.bus.nats_link import Heard, Link
from tertulia.bus.nats_upkeep import Upkeep
from tertulia.doors import Outcome
from tertulia.errors import ForkedRuntimeError, InvalidInput, MissingExtra, UsageError
from tertulia.loop_thread import LoopThread

LARGEST = 1024 * 1024
"""Bytes of one message, where a server does not say less."""

Undo = Callable[[], None]
_SUBJECT = re.compile(r"[^\s.]+(\.[^\s.]+)*")

log = logging.getLogger("tertulia.nats")


class NatsConnection:
    """NATS core, on a thread with a loop of its own. Nothing here waits, but what is awaited.

    It connects in the background and for ever, to one of the servers after the other. Nothing is
    promised of a message: one that is published while there is no connection is refused, and one
    that waits when the connection is lost is dropped, so that none comes late.
    """

    def __init__(self, url: str) -> None:
        """`url` is like ``nats://user:password@host:4222?name=my-app``.

        Several servers are separated by commas, and ``tls://`` insists on TLS. Options: ``name``
        (of the subjects), ``token``, ``creds`` and ``nkey`` (paths of files), ``tls_ca``,
        ``tls_cert``, ``tls_key``. Raises ConfigurationError; MissingExtra without nats-py.
        """
        self._address = parse(url)
        tls_context(self._address)
        read_key(self._address.options)
        if find_spec("nats") is None:
            raise MissingExtra("nats", "nats-py")
        self._starting = Lock()
        self._thread: LoopThread | None = None
        self._end: UsageError | None = None
        self._upkeep = Upkeep(self._address, self._change)
        self._numbers = itertools.count(1)
        self._told: dict[int, Callable[[bool], None]] = {}
        self._connected = False
        self._up: Outcome[None] = Outcome()
        self._largest = LARGEST

    def __repr__(self) -> str:
        return f"NatsConnection({self.url!r})"

    @property
    def url(self) -> str:
        """Its address without secrets."""
        return self._address.shown

    @property
    def name(self) -> str:
        """The name that all subjects begin with, after ``tertulia.``."""
        return self._address.name

    @property
    def connected(self) -> bool:
        """Whether a server can be reached, as far as is known: it takes 3 s to notice a silence."""
        return self._connected

    @property
    def refused(self) -> int:
        """How many messages `publish` did not take."""
        return self._upkeep.outbox.refused

    @property
    def lost(self) -> int:
        """How many messages were taken, and were dropped because the connection was lost."""
        return self._upkeep.outbox.lost

    def start(self) -> None:
        """Connect in the background; once is as good as twice.

        Raises UsageError when closed; ForkedRuntimeError in a process that was forked.
        """
        self._started()

    def publish(self, subject: str, data: bytes, reply: str = "") -> bool:
        """Send a message, without waiting. From one thread, they go out in their order.

        False where it was not taken: there is no connection, 50,000 messages or 8 MB wait, or it
        is larger than the server takes. Raises InvalidInput for what is no subject.
        """
        _check_subject(subject)
        if reply:
            _check_subject(reply)
        outbox = self._upkeep.outbox
        if len(data) > self._largest:
            return outbox.refuse()
        return outbox.put((subject, data, reply))

    def subscribe(self, subject: str, heard: Heard) -> Undo:
        """Have ``heard(subject, data, reply)`` called with each message; returns the undo.

        It is called on the connection's thread and must only hand things over: what takes long
        there holds up everything, and it must start no task. The subscription is kept over
        reconnects. What is published after it from the same thread comes after it. Raises
        InvalidInput for what is no subject.
        """
        _check_subject(subject)
        number = next(self._numbers)
        upkeep = self._upkeep

        def unsubscribe() -> None:
            if upkeep.subscriptions.pop(number, None) is not None:
                upkeep.outbox.see_to(number)

        upkeep.subscriptions[number] = (subject, heard)
        upkeep.outbox.see_to(number)
        return unsubscribe

    def on_change(self, tell: Callable[[bool], None]) -> Undo:
        """Be told on the connection's thread when it is there and when it is lost.

        Where it is there already, that is told too. Returns the undo.
        """
        number = next(self._numbers)
        alive = [True]

        def begin() -> None:
            if alive:
                self._told[number] = tell
                if self._connected:
                    self._tell(number)

        def undo() -> None:
            alive.clear()
            self._told.pop(number, None)

        with self._starting:
            if not self.call_soon(begin):
                self._told[number] = tell
        return undo

    def call_soon(self, work: Callable[[], object]) -> bool:
        """Call a function on the connection's thread; False where that does not run."""
        thread = self._thread
        if thread is None or self._end is not None:
            return False
        try:
            thread.loop.call_soon_threadsafe(_call, work)
        except RuntimeError:
            return False
        return True

    def call_every(self, seconds: float, work: Callable[[], object]) -> Undo:
        """Call a function on the connection's thread, now and then again; returns the undo.

        Raises UsageError when closed; ForkedRuntimeError in a process that was forked.
        """
        loop = self._started().loop
        alive = [True]

        def tick() -> None:
            if alive:
                loop.call_later(seconds, tick)
                _call(work)

        self.call_soon(tick)
        return alive.clear

    async def ready(self, seconds: float) -> bool:
        """Wait for the connection; False where the seconds ran out first.

        Raises UsageError when closed; ForkedRuntimeError in a process that was forked.
        """
        self._started()
        return await self._up.within(seconds)

    async def close(self) -> None:
        """Send what waits, within a second, and let go of everything."""
        closing = self._begin_closing()
        if closing is not None:
            await closing[1].within(None)
            closing[0].stop()

    def close_now(self) -> None:
        """The same, blocking this thread. Raises UsageError on the connection's own thread."""
        if self._thread is not None:
            self._thread.check_not_mine()
        closing = self._begin_closing()
        if closing is not None:
            closing[1].wait()
            closing[0].stop()

    def abandon(self) -> list[object]:
        """Be dead in a forked child; gives what nobody may use or close there."""
        self._end = ForkedRuntimeError(
            f"the connection to {self.url} was made before os.fork; start child processes by "
            "spawn, and make a new bus in them"
        )
        inherited, self._upkeep = self._upkeep, Upkeep(self._address, self._change)
        self._starting = Lock()
        self._connected = False
        return [self._thread, inherited]

    def _started(self) -> LoopThread:
        if self._end is not None:
            raise self._end
        if self._thread is None:
            with self._starting:
                if self._thread is None:
                    self._thread = LoopThread("tertulia-nats")
                    self._thread.submit(self._upkeep.run())
                    _living.add(self)
        return self._thread

    def _begin_closing(self) -> tuple[LoopThread, Outcome[None]] | None:
        with self._starting:
            if self._end is not None:
                return None
            self._end = UsageError(f"the connection to {self.url} is closed; make a new one")
            thread = self._thread
        _living.discard(self)
        return None if thread is None else (thread, thread.submit(self._upkeep.finish()))

    def _change(self, link: Link | None) -> None:
        """The connection is there, or lost."""
        self._connected = link is not None
        if link is not None:
            self._largest = link.largest
            self._up.set_result(None)
        else:
            self._up = Outcome()
        for number in list(self._told):
            self._tell(number)

    def _tell(self, number: int) -> None:
        if (tell := self._told.get(number)) is not None:
            _call(lambda: tell(self._connected))


def _check_subject(subject: str) -> None:
    if not _SUBJECT.fullmatch(subject):
        raise InvalidInput(f"{subject!r} is no subject: write words with dots between them")


def _call(work: Callable[[], object]) -> None:
    """What is called here must not harm the connection."""
    try:
        work()
    except Exception:
        log.exception("what the connection to NATS calls raised")


_living: WeakSet[NatsConnection] = WeakSet()


def _after_fork() -> None:
    """Have what was inherited never freed: to close its socket would take it from the parent."""
    for connection in list(_living):
        for inherited in connection.abandon():
            import ctypes  # slow to import, and needed in forked children only

            ctypes.pythonapi.Py_IncRef(ctypes.py_object(inherited))
    _living.clear()


def _at_exit() -> None:
    for connection in list(_living):
        connection.close_now()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
