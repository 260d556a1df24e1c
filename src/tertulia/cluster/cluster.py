"""Cluster: what a process is among the workers of one database."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import Protocol

from tertulia.bus.nats_bells import NatsBells
from tertulia.bus.nats_connection import NatsConnection
from tertulia.cluster.calls import Handler
from tertulia.cluster.channels import Channel
from tertulia.cluster.http import HttpPipe
from tertulia.cluster.nats import NatsPipe
from tertulia.cluster.pipes import Pipe
from tertulia.cluster.switchboard import Switchboard
from tertulia.doors import current_loop
from tertulia.errors import AgentError
from tertulia.stores.base import LogStore
from tertulia.stores.clustering import Clustered

_log = logging.getLogger("tertulia.cluster")

Tell = Callable[[bool], None]


class ClusteredStore(LogStore, Clustered, Protocol):
    """A log store of many machines."""


class Cluster:
    """Seats, channels to other workers, and what becomes of this one when its lease runs out.

    `join` is called when the store is first used, from any thread; `start` by whoever serves what
    others may ask for, on the loop where they are to be answered. `connection` is that to NATS,
    where there is one; without it, and where NATS does not answer, workers speak over HTTP.
    """

    def __init__(self, store: ClusteredStore, connection: NatsConnection | None) -> None:
        self.store = store
        self.lapses = 0
        """How often the lease of this worker has run out: what it had before is not its own."""
        self.lapsed = False
        """Whether it has run out now: nothing can be written, and others may take over."""
        self.http: HttpPipe | None = None
        """Lets other workers in over HTTP, once this one has started."""
        self._connection = connection
        self._lock = threading.Lock()
        self._bells: NatsBells | None = None
        self._ringing: asyncio.Task[None] | None = None
        self._undo: Callable[[], None] | None = None
        self._told: tuple[_Told, ...] = ()
        self._handlers: dict[str, Handler] = {}
        self._url: str | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._starting: asyncio.Task[Switchboard] | None = None

    @property
    def worker(self) -> bytes:
        """The uid of this worker."""
        return self.store.worker

    @property
    def lease(self) -> float:
        """Seconds that a worker may be silent before its sessions are another one's."""
        return self.store.lease

    @property
    def reachable(self) -> bool:
        """Whether others may reach this worker: over NATS, or at an address that it has told."""
        return self._connection is not None or self._url is not None

    # -- being there

    def join(self) -> None:
        """The store is about to be used: hear of lapses, and let NATS carry its bells; once.

        The bells begin where a loop runs; until then PostgreSQL carries them.
        """
        if self._undo is None:
            with self._lock:
                if self._undo is None:
                    self._undo = self.store.on_lapse(self._note_lapse)
        if self._connection is None or self._bells is not None:
            return
        loop = current_loop()
        with self._lock:
            if loop is not None and self._bells is None:
                self._bells = NatsBells(self._connection, self.store)
                self._ringing = loop.create_task(_begun(self._bells))

    async def start(self) -> None:
        """Speak with other workers, and answer them on this loop; once, until that is closed."""
        await self._switchboard()

    async def advertise(self, url: str | None) -> None:
        """Say where others reach this worker over HTTP. Raises InvalidInput."""
        self._url = url
        await self.start()
        if self.http is not None:
            await self.store.advertise(url, None if url is None else self.http.secret)

    async def close(self) -> None:
        """Speak with nobody any more."""
        starting, self._starting = self._starting, None
        self._loop = self.http = None
        await _closed(starting)
        if self._undo is not None:
            self._undo()
        ringing = self._ringing
        if ringing is not None and ringing.get_loop() is current_loop():
            ringing.cancel()
        if self._bells is not None:
            self._bells.close()

    async def _switchboard(self) -> Switchboard:
        self.join()
        starting = self._starting
        if starting is None or (self._loop is not None and self._loop.is_closed()):
            self._loop = asyncio.get_running_loop()
            starting = self._starting = self._loop.create_task(self._start(starting))
        if starting.done():
            return starting.result()
        return await asyncio.shield(starting)

    async def _start(self, before: asyncio.Task[Switchboard] | None) -> Switchboard:
        await _closed(before)
        self.http = HttpPipe(self.store.find_worker)
        pipes: list[Pipe] = [self.http]
        if self._connection is not None:
            pipes.insert(0, NatsPipe(self._connection))
        switchboard = Switchboard(self.worker, *pipes)
        for kind in self._handlers:
            switchboard.serve(kind, partial(self._handle, kind))
        await switchboard.start()
        if self._url is not None:
            await self.store.advertise(self._url, self.http.secret)
        return switchboard

    # -- seats

    async def take_seat(self, place: str, *, over: bytes | None = None) -> bytes | None:
        """Take a place, also from `over`: None where it is ours now, else the worker that has it.

        A place is free where nobody has it, and where the worker that had it is dead.
        """
        found = await self.store.take_seat(place, over=over)
        return None if found == self.worker else found

    async def leave_seat(self, place: str) -> None:
        """Give a place back, if it is ours."""
        await self.store.leave_seat(place)

    # -- channels

    def serve(self, kind: str, handler: Handler) -> None:
        """Answer channels of a kind: `handler` gets the first bytes and the channel.

        Another one for the same kind takes its place.
        """
        new = kind not in self._handlers
        self._handlers[kind] = handler
        if new and self._starting is not None and self._starting.done():
            self._starting.result().serve(kind, partial(self._handle, kind))

    async def _handle(self, kind: str, head: bytes, channel: Channel) -> None:
        await self._handlers[kind](head, channel)

    async def open(self, worker: bytes, kind: str, head: bytes) -> Channel:
        """A channel to another worker. Raises WorkerLost; NotDelivered where it heard nothing."""
        return await (await self._switchboard()).open(worker, kind, head)

    # -- the lease

    def on_lapse(self, tell: Tell) -> Callable[[], None]:
        """Tell of the end of the lease, True, and of its return, False; gives the undo.

        On the event loop that runs now; where none does, on any thread.
        """
        told = _Told(tell, current_loop())
        with self._lock:
            self._told = (*self._told, told)

        def forget() -> None:
            with self._lock:
                self._told = tuple(each for each in self._told if each is not told)

        return forget

    def _note_lapse(self, lapsed: bool) -> None:
        self.lapses += lapsed
        self.lapsed = lapsed
        for told in self._told:
            told(lapsed)


async def _closed(starting: asyncio.Task[Switchboard] | None) -> None:
    """Close a switchboard that has started, from any loop."""
    if starting is None or starting.cancelled():
        return
    if not starting.done():
        starting.cancel()
    elif starting.exception() is None:
        await starting.result().close()


async def _begun(bells: NatsBells) -> None:
    """Let bells be carried; where they cannot be, the store carries them in its own way."""
    try:
        await bells.start()
    except AgentError as error:
        _log.warning("NATS does not carry the bells of the store: %s", type(error).__name__)


class _Told:
    """Who is told of lapses, and where."""

    def __init__(self, tell: Tell, loop: asyncio.AbstractEventLoop | None) -> None:
        self._tell = tell
        self._loop = loop

    def __call__(self, lapsed: bool) -> None:
        if self._loop is None:
            self._tell(lapsed)
        else:
            with contextlib.suppress(RuntimeError):  # whoever was there went with the loop
                self._loop.call_soon_threadsafe(self._tell, lapsed)
