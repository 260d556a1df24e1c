"""That this worker lives, and the bells of others: what the one direct connection is for."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Iterable
from functools import partial
from time import monotonic

from tertulia.stores.bells import Bells
from tertulia.stores.postgres import sql
from tertulia.stores.postgres.connections import Connections, Pauses
from tertulia.stores.postgres.driver import Connection

SQL = sql.queries("workers.sql")
CHANNEL = "tertulia"
LEASE_SECONDS = 5.0
"""How long a worker may be silent before it counts as dead, whatever its lock says."""
SUSPECT_SECONDS = 2.0
"""The same for a worker whose lock is free: its connection is gone."""
HEARTBEAT_SECONDS = 0.5
POLL_SECONDS = 5.0
"""How often everybody is told to look, in case a bell of another process was lost."""
EVERYTHING, HELLO = "*", "?"
PAYLOAD_BYTES = 7_000

log = logging.getLogger(__name__)


class Presence:
    """Keeps a connection of its own: the worker's lock and heartbeat, and LISTEN."""

    def __init__(self, worker: bytes, connections: Connections, bells: Bells) -> None:
        self._worker = worker
        self._name = worker.hex()
        self._lock = int.from_bytes(worker[:8], "big", signed=True)
        self._connections = connections
        self._bells = bells
        self._connection: Connection | None = None
        self._locked = False
        self._company = True
        """Whether others may be there who want to hear of commits."""
        self._polled = 0.0
        self._news: set[int] = set()
        self._rung = asyncio.Event()

    async def enter(self) -> None:
        """Connect, and be known as alive."""
        connection = await self._connections.connect_directly()
        try:
            who = (self._worker, self._lock, socket.gethostname(), os.getpid(), LEASE_SECONDS)
            await connection.execute("SET synchronous_commit = off")
            await connection.execute(SQL["register"], *who)
            self._locked = False
            await self._take_lock(connection)
            await connection.add_listener(CHANNEL, self._hear)
            await _notify(self._signed(HELLO), connection)
        except BaseException:
            connection.terminate()
            raise
        self._connection = connection

    async def stay(self) -> None:
        """Renew until cancelled, over new connections where one is lost."""
        while True:
            connection = self._connection
            try:
                if connection is not None:
                    await self._renew(connection)
            except Exception as error:
                log.warning("the direct connection was lost: %r; trying again", error)
                self._connection = None
                if connection is not None:
                    connection.terminate()
            await self._enter_again()
            self._bells.ring_all()

    async def _renew(self, connection: Connection) -> None:
        while True:
            async with asyncio.timeout(LEASE_SECONDS / 2):
                [(self._company,)] = await connection.fetch(SQL["renew"], self._worker)
                if not self._locked:
                    await self._take_lock(connection)
            if monotonic() - self._polled > POLL_SECONDS:
                self._polled = monotonic()
                self._bells.ring_all()
            await asyncio.sleep(HEARTBEAT_SECONDS)

    async def _enter_again(self) -> None:
        pauses = Pauses(float("inf"))
        while True:
            await pauses.pause()
            try:
                return await self.enter()
            except Exception as error:
                log.debug("no direct connection yet: %r", error)
                self._bells.ring_all()

    async def _take_lock(self, connection: Connection) -> None:
        """Take it, unless a connection of ours that the server thinks alive still has it."""
        [(self._locked,)] = await connection.fetch(SQL["locked"], self._lock)
        if self._locked:
            await connection.execute(SQL["has_locked"], self._worker)

    async def leave(self) -> None:
        """Be known as gone."""
        if self._connection is not None:
            async with asyncio.timeout(1):
                await self._connection.execute(SQL["leave"], self._worker)
                await self._connection.close()

    # -- bells

    def ring(self, sessions: Iterable[int]) -> None:
        """Tell those who watch here at once, and those elsewhere soon."""
        touched = set(sessions)
        self._bells.ring(touched)
        if self._company:
            self._news |= touched
            self._rung.set()

    async def tell(self) -> None:
        """Tell other processes of news, once for all that has come together, until cancelled."""
        while True:
            await self._rung.wait()
            self._rung.clear()
            try:
                news, self._news = self._news, set()
                await self._connections.attempt(partial(_notify, self._signed(_payload(news))))
            except Exception as error:
                log.debug("a bell was lost: %r", error)

    def _hear(self, _connection: object, _process: int, _channel: str, payload: str) -> None:
        sender, _, news = payload.partition(":")
        if sender == self._name:
            return
        if news == HELLO:
            self._company = True
        elif news == EVERYTHING:
            self._bells.ring_all()
        else:
            self._bells.ring(map(int, news.split(",")))

    def _signed(self, news: str) -> str:
        return f"{self._name}:{news}"


async def _notify(payload: str, connection: Connection) -> None:
    await connection.execute(SQL["notify"], payload)


def _payload(sessions: set[int]) -> str:
    text = ",".join(map(str, sessions))
    return text if len(text) <= PAYLOAD_BYTES else EVERYTHING
