"""Turns that dead workers left open: finding them, and waiting while they can be resumed."""

from __future__ import annotations

from tertulia.host import Host
from tertulia.stores.base import SessionRow
from tertulia.stores.clustering import Clustered

PAGE = 200
KEPT = 1_000
"""How many that can still be resumed are remembered; others are found again."""
BELIEVED = 1.0
"""Seconds for which what was read of a worker's life is believed."""


class Leftovers:
    """Finds turns whose holder has been dead for `grace` seconds, since that was first seen."""

    def __init__(self, host: Host, grace: float) -> None:
        self._host = host
        self._grace = grace
        self._dead: dict[bytes, float] = {}
        """When each holder of what was found was first seen to be dead."""
        self._seen: set[bytes] = set()
        """Those that were found since the last look at the first sessions."""
        self._kept: set[int] = set()
        self._after = 0
        self._alive: dict[bytes, bool] = {}
        self._asked = float("-inf")

    async def is_held(self, row: SessionRow) -> bool:
        """Whether a turn of the session is open in a worker that lives. Raises StoreError."""
        if row.open_turn is None or row.holder is None:
            return False
        now = self._host.clock.monotonic()
        if now - self._asked > BELIEVED:
            self._alive, self._asked = {}, now
        if row.holder not in self._alive:
            self._alive[row.holder] = await self._host.store.worker_is_alive(row.holder)
        return self._alive[row.holder]

    async def ripe(self, limit: int) -> tuple[list[SessionRow], bool]:
        """Sessions whose open turn may be closed now, and whether there is more to look at.

        It looks at `limit` sessions at most, and goes on there the next time. Raises StoreError.
        """
        store = self._host.store
        if isinstance(store, Clustered):
            found = await store.abandoned(limit, after=self._after)
            self._after = found[-1].key if len(found) == limit else 0
        else:
            found = [*await self._again(), *await self._next(limit)]
        more, now = self._after > 0, self._host.clock.monotonic()
        self._seen |= {row.holder for row in found if row.holder}
        self._dead = dict.fromkeys(self._seen, now) | self._dead
        ripe = [row for row in found if now - self._dead[row.holder or b""] >= self._grace]
        young = {row.key for row in found} - {row.key for row in ripe}
        self._kept = set(sorted(young)[:KEPT])
        if not more:
            self._dead = {holder: self._dead[holder] for holder in self._seen}
            self._seen = {row.holder for row in found if row.key in self._kept and row.holder}
        return ripe, more

    async def _again(self) -> list[SessionRow]:
        """Those that were too young the last time, and are still left."""
        rows = [await self._host.store.row(key) for key in sorted(self._kept)]
        return [row for row in rows if row is not None and await self._is_left(row)]

    async def _next(self, limit: int) -> list[SessionRow]:
        """Those among the next sessions of the store."""
        found: list[SessionRow] = []
        for _ in range(0, limit, PAGE):
            page = await self._host.store.rows(after=self._after, limit=PAGE)
            found += [row for row in page if row.key not in self._kept and await self._is_left(row)]
            self._after = page[-1].key if len(page) == PAGE else 0
            if not self._after:
                break
        return found

    async def _is_left(self, row: SessionRow) -> bool:
        return row.open_turn is not None and row.holder is not None and not await self.is_held(row)
