"""Bells between workers: by who carries them, or by NOTIFY, once for all that has come together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable
from functools import partial

from tertulia.stores.bells import Bells
from tertulia.stores.postgres import sql
from tertulia.stores.postgres.connections import Connections
from tertulia.stores.postgres.driver import Connection

SQL = sql.queries("workers.sql")
CHANNEL = "tertulia"
EVERYTHING, HELLO = "*", "?"
PAYLOAD_BYTES = 7_000

Carrier = Callable[[Collection[int]], bool]
log = logging.getLogger(__name__)


class Ringing:
    """Tells others of what was written here, and those who watch here of what others say."""

    def __init__(self, worker: bytes, bells: Bells) -> None:
        self._name = worker.hex()
        self._bells = bells
        self._news: set[int] = set()
        self._rung = asyncio.Event()
        self.carrier: Carrier | None = None
        """Who tells others instead of the server."""
        self.company = True
        """Whether others may be there who want to hear of commits."""

    def ring(self, sessions: Iterable[int]) -> None:
        """Tell those who watch here at once, and those elsewhere soon."""
        touched = set(sessions)
        self._bells.ring(touched)
        if self.company:
            self._news |= touched
            self._rung.set()

    def ring_all(self) -> None:
        """Tell all who watch here to look again."""
        self._bells.ring_all()

    async def tell(self, connections: Connections) -> None:
        """Tell other processes of news, until cancelled."""
        while True:
            await self._rung.wait()
            self._rung.clear()
            news, self._news = self._news, set()
            if self._carried(news):
                await asyncio.sleep(0)
                continue
            try:
                await connections.attempt(partial(_notify, self._signed(_payload(news))))
            except Exception as error:
                log.debug("a bell was lost: %r", error)

    def _carried(self, news: set[int]) -> bool:
        try:
            return self.carrier is not None and self.carrier(news)
        except Exception:
            log.exception("a bell could not be carried; the server rings it")
            return False

    async def listen(self, connection: Connection) -> None:
        """Hear of news over a connection, and say that there is somebody who does."""
        await connection.add_listener(CHANNEL, self._hear)
        await _notify(self._signed(HELLO), connection)

    def _hear(self, _connection: object, _process: int, _channel: str, payload: str) -> None:
        sender, _, news = payload.partition(":")
        if sender == self._name:
            return
        if news == HELLO:
            self.company = True
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
