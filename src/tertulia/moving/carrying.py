"""Carrying one session: its rows are written where nobody sees them, compared, and shown."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from hashlib import sha256

import msgspec

from tertulia.errors import StoreCorrupt
from tertulia.moving.results import Moved
from tertulia.proof import verify_row
from tertulia.stores.base import LogStore
from tertulia.stores.moving import (
    OF_SESSION,
    PAGE_BYTES,
    PAGE_ROWS,
    Arrival,
    MovingRows,
    Reserved,
    Row,
    SessionValues,
)
from tertulia.stores.rows import session_row


class Digest:
    """SHA-256 over all columns of all rows of a session, and how many they are."""

    def __init__(self) -> None:
        self._digest = sha256()
        self.rows = 0
        self.bytes = 0

    def feed(self, table: str, row: Row) -> None:
        """Take one more row."""
        self._digest.update(msgspec.msgpack.encode((table, row.values)))
        self.rows += 1
        self.bytes += _size(row)

    @property
    def result(self) -> tuple[int, str]:
        """What must be the same of what was read and of what was written."""
        return self.rows, self._digest.hexdigest()


def _size(row: Row) -> int:
    return sum(len(each) for each in row.values if isinstance(each, bytes | str))


class Batch:
    """Rows that are written together."""

    def __init__(self) -> None:
        self.parts: list[tuple[str, list[Row]]] = []
        self._rows = 0
        self._bytes = 0

    def add(self, table: str, row: Row) -> None:
        """Add a row."""
        if not self.parts or self.parts[-1][0] != table:
            self.parts.append((table, []))
        self.parts[-1][1].append(row)
        self._rows += 1
        self._bytes += _size(row)

    @property
    def full(self) -> bool:
        """Whether it is to be written before more comes."""
        return self._rows >= PAGE_ROWS or self._bytes >= PAGE_BYTES


class Place:
    """A place in the order in which sessions arrive, which is that of their creation."""

    def __init__(self, before: Place | None = None) -> None:
        self._before = before
        self._arrived = asyncio.Event()

    async def wait(self) -> None:
        """Wait until the one before has arrived, or will not."""
        if self._before is not None:
            await self._before._arrived.wait()
            self._before = None

    def passed(self) -> None:
        """Let the next one arrive."""
        self._arrived.set()


class Carrier:
    """Carries the rows of one fenced session."""

    def __init__(
        self,
        stores: tuple[LogStore, LogStore],
        rows: tuple[MovingRows, MovingRows],
        arrival: Arrival,
        values: SessionValues,
        advance: Callable[[int], None],
        place: Place,
    ) -> None:
        self._source, self._target = stores
        self._from, self._to = rows
        self._arrival = arrival
        self._values = values
        self._advance = advance
        self._place = place
        self._reserved: Reserved | None = None

    async def carry(self, key: int, moved: Moved) -> None:
        """Copy, compare, verify, show. Raises StoreCorrupt and SessionExists."""
        read = await self._copy(key)
        reserved = self._reserved or Reserved(0, 0)
        written = Digest()
        for table in OF_SESSION:
            async for row in pages(self._to, table, reserved.key):
                written.feed(table, row)
        if written.result != read.result:
            raise self._differs(f"{written.rows} rows were written, and {read.rows} read")
        await self._verify(reserved.key)
        await self._to.finish(reserved.key, self._arrival, self._values)
        moved.sessions += 1
        moved.events += self._values.seq - self._values.base
        moved.bytes += read.bytes

    async def leave_stub(self, key: int) -> None:
        """Carry what forks need of a session that was deleted: how its branches stand."""
        batch = Batch()
        for table in ("branches", "marks"):
            async for row in pages(self._from, table, key):
                batch.add(table, row)
        reserved = await self._to.arrive(self._arrival, self._values, batch.parts)
        await self._to.finish(reserved.key, self._arrival, self._values)

    async def _copy(self, key: int) -> Digest:
        read, batch = Digest(), Batch()
        for table in OF_SESSION:
            async for row in self._rows(table, key):
                self._check_known(table, row)
                read.feed(table, row)
                if table == "events" and self._reserved and row.values[0] <= self._reserved.seq:
                    continue
                batch.add(table, row)
                if batch.full:
                    await self._flush(batch)
                    batch = Batch()
        if batch.parts or self._reserved is None:
            await self._flush(batch)
        return read

    async def _rows(self, table: str, key: int) -> AsyncIterator[Row]:
        """Rows of the session; what a living caller waits with stays, for it is told no."""
        alive: dict[bytes, bool] = {}
        async for row in pages(self._from, table, key):
            if table == "inbox":
                worker: bytes = row.values[0]
                if worker not in alive:
                    alive[worker] = await self._source.worker_is_alive(worker)
                if alive[worker]:
                    continue
            yield row

    def _check_known(self, table: str, row: Row) -> None:
        if table == "branches" and row.values[1] == b"":
            raise self._differs("it stands on a session that is not there")

    async def _flush(self, batch: Batch) -> None:
        if self._reserved is None:
            await self._place.wait()
            self._reserved = await self._to.arrive(self._arrival, self._values, batch.parts)
            self._place.passed()
        else:
            await self._to.add(self._reserved.key, self._arrival, batch.parts)
        self._advance(sum(len(rows) for table, rows in batch.parts if table == "events"))

    async def _verify(self, key: int) -> None:
        hidden = await self._target.row(key)
        if hidden is None:
            raise self._differs("its row went away")
        values = self._values
        row = session_row((key, *values[:5], hidden.parent, *values[6:]))
        found = await verify_row(self._target, row)
        if not found:
            raise self._differs(found.reason or "it does not verify")

    def _differs(self, why: str) -> StoreCorrupt:
        return StoreCorrupt(f"session {self._values.id!r}: {why}")


async def pages(rows: MovingRows, table: str, of: int = 0) -> AsyncIterator[Row]:
    """All rows of a table, a page at a time."""
    after = None
    while page := await rows.page(table, of, after):
        for row in page:
            yield row
        after = page[-1].place
