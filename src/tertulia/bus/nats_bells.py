"""Bells of a store over NATS: "look again", from the process that wrote to those that watch."""

from __future__ import annotations

import logging
import os
import struct
from collections.abc import Callable, Collection, Iterable
from hashlib import blake2b
from typing import Protocol

from tertulia.bus.nats_connection import NatsConnection

MAX_SESSIONS = 12_500
"""How many sessions are named; a message for more of them says that all may have changed."""
_WIDTH = 8
"""Bytes of a session's key, and of who rings."""
_ALL = b"*"
"""What stands for the sessions where they are too many."""

log = logging.getLogger("tertulia.nats")


class Ringing(Protocol):
    """What a store needs to have for its bells to be carried."""

    async def incarnation(self) -> str: ...

    def carry_bells(self, carrier: Callable[[Collection[int]], bool] | None) -> None: ...

    def ring_here(self, sessions: Iterable[int] | None) -> None: ...


class NatsBells:
    """Carries the bells of a store to its other workers, while there is a connection.

    Where there is none, the store rings in its own way. Bells that were lost while it was away
    are made good: when the connection comes or goes, everything that is watched here is looked at.
    """

    def __init__(self, connection: NatsConnection, store: Ringing) -> None:
        self._connection = connection
        self._store = store
        self._id = os.urandom(_WIDTH)
        self._subject = ""
        self._undo: list[Callable[[], None]] = []
        self._ignored = 0

    @property
    def ignored(self) -> int:
        """How many messages came that no worker of this version can have sent."""
        return self._ignored

    async def start(self) -> None:
        """Connect, and carry from now on. Raises what the store raises where it cannot be opened,
        and UsageError where the connection is closed."""
        database = await self._store.incarnation()
        self._subject = _subject(self._connection.name, database)
        self._connection.start()
        self._undo = [
            self._connection.subscribe(self._subject, self._heard),
            self._connection.on_change(self._changed),
        ]
        self._store.carry_bells(self._carry)

    def close(self) -> None:
        """Leave the bells to the store again; once is as good as twice."""
        undo, self._undo = self._undo, []
        if undo:
            self._store.carry_bells(None)
        for each in undo:
            each()

    def _changed(self, connected: bool) -> None:
        """Look at everything: at once, or as soon as bells are sure to be heard here.

        That is when a message of our own comes back, which names nobody.
        """
        if not connected or not self._connection.publish(self._subject, self._id):
            self._store.ring_here(None)

    def _carry(self, sessions: Collection[int]) -> bool:
        """Ring elsewhere; False where that cannot be done now. On the store's thread."""
        many = len(sessions) > MAX_SESSIONS
        named = _ALL if many else struct.pack(f"<{len(sessions)}q", *sessions)
        return not sessions or self._connection.publish(self._subject, self._id + named)

    def _heard(self, subject: str, data: bytes, reply: str) -> None:
        """Somebody rings. On the connection's thread."""
        who, named = data[:_WIDTH], data[_WIDTH:]
        if len(who) < _WIDTH or (len(named) % _WIDTH and named != _ALL):
            self._ignored += 1
        elif who == self._id:
            if not named:
                self._store.ring_here(None)
        elif named == _ALL:
            self._store.ring_here(None)
        elif named:
            self._store.ring_here(struct.unpack(f"<{len(named) // _WIDTH}q", named))


def _subject(name: str, database: str) -> str:
    """Bells of another database must not ring here."""
    return f"tertulia.{name}.bell.{blake2b(database.encode(), digest_size=16).hexdigest()}"
