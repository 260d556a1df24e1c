"""A few connections for reading, lent for one query at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable

from tertulia.stores.database import Database

MOST = 8


class Readers:
    """Queries run in the thread that asks: a small one takes less time than to hand it over."""

    def __init__(self, connect: Callable[[], Database]) -> None:
        self._connect = connect
        self._free: list[Database] = []
        self._every: list[Database] = []
        self._turn = threading.Semaphore(MOST)
        self._closed = False

    def take(self) -> Database:
        self._turn.acquire()
        try:
            return self._free.pop()
        except IndexError:
            return self._new()

    def _new(self) -> Database:
        try:
            db = self._connect()
        except BaseException:
            self._turn.release()
            raise
        self._every.append(db)
        return db

    def give(self, db: Database) -> None:
        if self._closed:
            db.close()
        else:
            self._free.append(db)
        self._turn.release()

    def close(self) -> None:
        """Close those that are not lent; the others when they come back."""
        self._closed = True
        while self._free:
            self._free.pop().close()

    def connections(self) -> list[Database]:
        """All of them, also those that are lent."""
        return list(self._every)
