"""That this worker lives: its row, its heartbeat and its lock, over one direct connection."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from time import monotonic
from typing import Any

import msgspec

from tertulia.errors import ConfigurationError, InvalidInput, StoreTooNew
from tertulia.stores.bells import Bells
from tertulia.stores.postgres import sql
from tertulia.stores.postgres.connections import CONNECT_SECONDS, Connections, Pauses
from tertulia.stores.postgres.driver import Connection
from tertulia.stores.postgres.lapse import Lapse
from tertulia.stores.postgres.migrations import Migrations, State, meta
from tertulia.stores.postgres.ringing import Ringing
from tertulia.values import json_object

SQL = sql.queries("workers.sql")
HEARTBEAT_SECONDS = 0.5
"""At most; a tenth of the lease where that is shorter."""
LOAD_BYTES = 4_096

log = logging.getLogger(__name__)


class Said:
    """What a worker says of itself, whatever becomes of its connections."""

    def __init__(self, worker: bytes, lease: float) -> None:
        self.worker = worker
        self.lease = lease
        self.url: str | None = None
        self.secret: str | None = None
        self.database = ""
        """The incarnation of the store, once it is known."""
        self.report: Callable[[], dict[str, Any]] | None = None
        self._complained = False

    def load(self) -> str | None:
        """Its load as JSON; None, and a line in the log for the first time, where it has none."""
        if self.report is None:
            return None
        try:
            text = msgspec.json.encode(json_object(self.report(), "the load")).decode()
            if len(text) > LOAD_BYTES:
                raise InvalidInput(f"the load has {len(text)} bytes, and {LOAD_BYTES} at most")
        except Exception:
            if not self._complained:
                log.exception("the load of this worker is not known")
            self._complained = True
            return None
        self._complained = False
        return text


class Presence:
    """Keeps a connection of its own: the worker's lock and heartbeat, and LISTEN."""

    def __init__(self, worker: bytes, lease: float, bells: Bells) -> None:
        self.said = Said(worker, lease)
        self.ringing = Ringing(worker, bells)
        self.lapse = Lapse(lease)
        self.heartbeat = min(HEARTBEAT_SECONDS, lease / 10)
        self._lock = int.from_bytes(worker[:8], "big", signed=True)
        self._connection: Connection | None = None
        self._locked = False

    async def enter(self, connections: Connections, known: Migrations) -> None:
        """Connect, and be known as alive. Raises StoreTooNew."""
        connection = await connections.connect_directly()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await connection.execute("SET synchronous_commit = off")
                await self._register(connection, known)
                self._locked = False
                await self._take_lock(connection)
                await self.ringing.listen(connection)
        except BaseException:
            connection.terminate()
            raise
        self._connection = connection

    async def _register(self, connection: Connection, known: Migrations) -> None:
        """Be a worker, unless somebody closes the entrance to code that is as old as this."""
        said, sent = self.said, monotonic()
        async with connection.transaction():
            await connection.execute(SQL["hold_entrance"])
            found = await meta(connection)
            known.check_allowed(State.of(found), "this database")
            if said.database not in {"", found.get("incarnation")}:
                raise ConfigurationError(
                    "?direct= names another database than the address of the store; name the same"
                )
            await connection.execute(SQL["note_server"])
            who = (said.worker, self._lock, socket.gethostname(), os.getpid(), said.lease)
            shown = (known.newest, said.url, said.secret, said.load())
            await connection.execute(SQL["register"], *who, *shown)
        self.lapse.renewed(sent)

    async def stay(self, connections: Connections, known: Migrations) -> None:
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
            await self._enter_again(connections, known)
            self.ringing.ring_all()

    async def _renew(self, connection: Connection) -> None:
        """Until the connection, or the row of this worker, is lost."""
        said = self.said
        while True:
            self.lapse.judge()
            load, sent = said.load(), monotonic()
            async with asyncio.timeout(said.lease / 2):
                found = await connection.fetch(SQL["renew"], said.worker, load)
                if not found:
                    log.warning("this worker was forgotten, and registers again")
                    return
                self.lapse.renewed(sent)
                self.ringing.company = found[0][0]
                if not self._locked:
                    await self._take_lock(connection)
            await asyncio.sleep(self.heartbeat)

    async def _enter_again(self, connections: Connections, known: Migrations) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None
        pauses = Pauses(float("inf"))
        while True:
            await pauses.pause()
            try:
                return await self.enter(connections, known)
            except StoreTooNew as error:
                connections.refusal = error
                log.error("this worker may not go on: %s", error)
                raise
            except Exception as error:
                log.debug("no direct connection yet: %r", error)
                self.ringing.ring_all()

    async def _take_lock(self, connection: Connection) -> None:
        """Take it, unless a connection of ours that the server thinks alive still has it."""
        [(self._locked,)] = await connection.fetch(SQL["locked"], self._lock)
        if self._locked:
            await connection.execute(SQL["has_locked"], self.said.worker)

    async def leave(self) -> None:
        """Be known as gone."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            async with asyncio.timeout(1):
                await connection.execute(SQL["leave"], self.said.worker)
                await connection.close()
        finally:
            connection.terminate()
