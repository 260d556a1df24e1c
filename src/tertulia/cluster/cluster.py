"""Cluster: what a process is among the workers of one database."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from time import monotonic
from typing import Protocol

from tertulia.bus.nats_bells import NatsBells
from tertulia.bus.nats_connection import NatsConnection
from tertulia.cluster.calls import Handler
from tertulia.cluster.channels import Channel
from tertulia.cluster.http import HttpPipe
from tertulia.cluster.lapses import Lapses, Tell
from tertulia.cluster.nats import NatsPipe
from tertulia.cluster.pipes import Pipe
from tertulia.cluster.station import Station
from tertulia.doors import current_loop
from tertulia.errors import AgentError
from tertulia.stores.base import LogStore
from tertulia.stores.clustering import Clustered

CONNECTING = 1.0
"""Seconds for which the start waits for NATS; without it workers reach each other over HTTP."""
AGAIN = 5.0
"""Seconds until NATS is asked again to carry the bells, where that failed."""

_log = logging.getLogger("tertulia.cluster")


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
        self.http: HttpPipe | None = None
        """Lets other workers in over HTTP, once this one has started."""
        self._connection = connection
        self._lapses = Lapses()
        self._station = Station(store.worker, self._pipes)
        self._url: str | None = None
        self._lock = threading.Lock()
        self._undo: Callable[[], None] | None = None
        self._bells: NatsBells | None = None
        self._ringing: asyncio.Task[None] | None = None
        self._ring_from = 0.0
        self._awaited = False
        """Whether it was waited for NATS, which is done once."""
        self._telling: asyncio.Task[None] | None = None

    @property
    def worker(self) -> bytes:
        """The uid of this worker."""
        return self.store.worker

    @property
    def lease(self) -> float:
        """Seconds that a worker may be silent before its sessions are another one's."""
        return self.store.lease

    @property
    def lapses(self) -> int:
        """How often the lease of this worker has run out: what it had before is not its own."""
        return self._lapses.count

    @property
    def lapsed(self) -> bool:
        """Whether it has run out now: nothing can be written, and others may take over."""
        return self._lapses.now

    @property
    def reachable(self) -> bool:
        """Whether others may reach this worker: over NATS, or at an address that it has told."""
        connection = self._connection
        return self._url is not None or (connection is not None and connection.connected)

    # -- being there

    def join(self) -> None:
        """The store is about to be used: hear of lapses, and let NATS carry its bells; once.

        The bells begin where a loop runs; until then PostgreSQL carries them.
        """
        if self._undo is None:
            with self._lock:
                if self._undo is None:
                    self._undo = self.store.on_lapse(self._lapses.note)
        if self._connection is not None and self._bells is None:
            self._carry_bells(self._connection)

    def _carry_bells(self, connection: NatsConnection) -> None:
        loop = current_loop()
        with self._lock:
            if loop is None or self._bells is not None or monotonic() < self._ring_from:
                return
            self._bells = NatsBells(connection, self.store)
            self._ringing = loop.create_task(self._begin(self._bells))

    async def _begin(self, bells: NatsBells) -> None:
        """Let NATS carry the bells; where it cannot, PostgreSQL does, and it is tried again."""
        begun = False
        try:
            await bells.start()
            begun = True
        except AgentError as error:
            _log.warning("NATS does not carry the bells of the store: %s", type(error).__name__)
        finally:
            if not begun:
                bells.close()
                self._ring_from = monotonic() + AGAIN
                self._bells = None

    async def start(self) -> None:
        """Speak with other workers, and answer them on this loop; once, until that is closed."""
        self.join()
        await self._station.switchboard()
        if self._connection is not None and not self._awaited:
            self._awaited = True
            await self._connection.ready(CONNECTING)

    async def advertise(self, url: str | None) -> None:
        """Say where others reach this worker over HTTP. Raises InvalidInput."""
        self._url = url
        await self.start()
        if self.http is not None:
            await self.store.advertise(url, None if url is None else self.http.secret)

    async def close(self) -> None:
        """Speak with nobody any more."""
        try:
            await self._station.close()
        finally:
            self.http = None
            if self._undo is not None:
                self._undo()
            ringing = self._ringing
            if ringing is not None and ringing.get_loop() is current_loop():
                ringing.cancel()
            if self._bells is not None:
                self._bells.close()

    def _pipes(self) -> list[Pipe]:
        """How a new switchboard reaches others. A new secret for HTTP is told with it."""
        http = self.http = HttpPipe(self.store.find_worker)
        if self._url is not None:
            self._telling = asyncio.ensure_future(self._tell_secret(self._url, http.secret))
        return [http] if self._connection is None else [NatsPipe(self._connection), http]

    async def _tell_secret(self, url: str, secret: str) -> None:
        try:
            await self.store.advertise(url, secret)
        except AgentError as error:  # it is told with the next registration
            _log.warning("others are not told yet where this worker is: %s", type(error).__name__)

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
        self._station.serve(kind, handler)

    async def open(self, worker: bytes, kind: str, head: bytes) -> Channel:
        """A channel to another worker. Raises WorkerLost; NotDelivered where it heard nothing."""
        self.join()
        return await (await self._station.switchboard()).open(worker, kind, head)

    # -- the lease

    def on_lapse(self, tell: Tell, *, anywhere: bool = False) -> Callable[[], None]:
        """Tell of the end of the lease, True, and of its return, False; gives the undo.

        On the event loop that runs now, as long as it does; `anywhere` means at once, on the
        thread of the store.
        """
        return self._lapses.tell(tell, anywhere=anywhere)
