"""Bells between workers: by who carries them, or by NOTIFY, once for all that has come together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import Any

from tertulia.stores.bells import Bells
from tertulia.stores.postgres import sql
from tertulia.stores.postgres.connections import Connections
from tertulia.stores.postgres.driver import Connection

SQL = sql.queries("workers.sql")
CHANNEL = "tertulia"
EVERYTHING, HELLO = "*", "?"
PAYLOAD_BYTES = 7_000
GATHERING = 0.01
"""Seconds after a bell in which the next ones are gathered: each is heard by every worker."""
LOOK_SECONDS = 1.0
"""How often it is looked whether a bell of another process was lost: once for all who watch."""
LOOKED_AT = 1_000
"""Sessions that one statement looks at."""

Carrier = Callable[[Collection[int]], bool]
State = tuple[Any, ...] | None
"""What of a session is looked at; None where it is gone."""
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
        if self.company and touched:
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
            if not self._carried(news):
                try:
                    await connections.attempt(partial(_notify, self._signed(_payload(news))))
                except Exception as error:
                    log.debug("a bell was lost: %r", error)
            await asyncio.sleep(GATHERING)

    async def look(self, connections: Connections) -> None:
        """Ring for what has changed since the last look, in case no bell rang; until cancelled."""
        seen: dict[int, State] = {}
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            watched = self._bells.watched()
            found: dict[int, State] = {}
            try:
                for start in range(0, len(watched), LOOKED_AT):
                    some = watched[start : start + LOOKED_AT]
                    found |= await connections.attempt(partial(_states, some))
            except Exception as error:
                log.debug("it could not be seen what has changed: %r", error)
                continue
            self._bells.ring(
                each for each in watched if each not in seen or found.get(each) != seen[each]
            )
            seen = {each: found.get(each) for each in watched}

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


async def _states(sessions: list[int], connection: Connection) -> dict[int, State]:
    rows = await connection.fetch(SQL["states"], sessions)
    return {row[0]: tuple(row) for row in rows}


def _payload(sessions: set[int]) -> str:
    text = ",".join(map(str, sessions))
    return text if len(text) <= PAYLOAD_BYTES else EVERYTHING
