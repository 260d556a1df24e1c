"""What a move reads and writes of a database."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

from tertulia.stores.base import Receipt
from tertulia.stores.moving import (
    MOVED,
    OF_SESSION,
    PAGE_BYTES,
    PAGE_ROWS,
    Arrival,
    Chained,
    Note,
    Part,
    Reserved,
    Row,
    SessionValues,
    Swap,
    Values,
)
from tertulia.stores.postgres import arriving, changing, sql
from tertulia.stores.postgres.driver import Connection
from tertulia.stores.postgres.operations import Operations
from tertulia.stores.postgres.writing import affected

T = TypeVar("T")
SQL = sql.queries("moving.sql")


class Layout:
    """How the pages of a table are read: before all places, and where the rows begin."""

    def __init__(self, first: Values, start: int = 0, *, large: bool = False) -> None:
        self.first = first
        self.start = start
        self.bounds = (PAGE_ROWS, PAGE_BYTES) if large else (PAGE_ROWS,)


LAYOUTS = {
    "events": Layout((-1,), large=True),
    "branches": Layout((-1,)),
    "marks": Layout(("", -1, -1, -1)),
    "session_state": Layout(("", -1)),
    "requests": Layout(("",), large=True),
    "inbox": Layout((0,), 1, large=True),
    "shared_state": Layout(("", "", "", ""), 4, large=True),
    "entities": Layout(("", ""), large=True),
    "documents": Layout((0,), 1, large=True),
    "memory_owners": Layout((0,), 1),
    "memories": Layout((0,), 1, large=True),
}


class Ask(Protocol):
    """Runs on a connection; again, where it is not known whether it was done."""

    def __call__(self, work: Callable[[Connection], Awaitable[T]], /) -> Awaitable[T]: ...


class PostgresMoves(Operations):
    """The part of a store that says how it is moved."""

    @property
    def moving(self) -> PostgresMoving:
        """What a move reads and writes."""
        return PostgresMoving(self._ask, self._ring)


class PostgresMoving:
    """Each call that writes is one transaction, and may be made twice."""

    def __init__(self, ask: Ask, ring: Callable[[int], None]) -> None:
        self._ask = ask
        self._ring = ring

    # -- reading

    async def page(self, table: str, of: int = 0, after: Values | None = None) -> list[Row]:
        return await self._ask(lambda db: _page(db, table, of, after))

    async def sessions(self, after: int = 0) -> list[Row]:
        async def work(db: Connection) -> list[Row]:
            found = await db.fetch(SQL["sessions"], after, PAGE_ROWS)
            return [Row(tuple(each[:1]), tuple(each[1:])) for each in map(tuple, found)]

        return await self._ask(work)

    async def session(self, uid: bytes) -> Row | None:
        return await self._ask(lambda db: arriving.session(db, uid))

    async def found(self, table: str, keys: Sequence[Values]) -> list[Values | None]:
        async def work(db: Connection) -> list[Values | None]:
            return [await arriving.find(db, table, key) for key in keys]

        return await self._ask(work)

    async def notes(self, kind: str, after: str = "") -> list[tuple[str, bytes]]:
        async def work(db: Connection) -> list[tuple[str, bytes]]:
            found = await db.fetch(SQL["notes"], kind, after, PAGE_ROWS)
            return [(key, value) for key, value in found]

        return await self._ask(work)

    async def note(self, kind: str, key: str) -> bytes | None:
        return await self._ask(lambda db: arriving.note(db, kind, key))

    async def receipts(self, after: int) -> list[Chained]:
        async def work(db: Connection) -> list[Chained]:
            return [
                Chained(Receipt(id=number, time=time, type=kind, body=body), previous, digest)
                for number, time, kind, body, digest, previous in await db.fetch(
                    SQL["receipts"], after, PAGE_ROWS
                )
            ]

        return await self._ask(work)

    # -- the store that is moved from

    async def fence(self, key: int, fence: Values, name: str, note: bytes) -> bool:
        async def work(db: Connection) -> bool:
            async with db.transaction():
                if not affected(await db.execute(SQL["fence"], key, *fence)):
                    return False
                await db.execute(SQL["put_notes"], MOVED, [name], [note])
            return True

        done = await self._ask(work)
        self._ring(key)
        return done

    async def unfence(self, key: int, name: str, note: Note) -> None:
        async def work(db: Connection) -> None:
            async with db.transaction():
                await db.execute(SQL["unfence"], key, note.status, note.holder, note.due_at)
                await db.execute(SQL["drop_notes"], MOVED, [name])

        await self._ask(work)
        self._ring(key)

    async def write_notes(
        self, kind: str, put: Sequence[tuple[str, bytes]], drop: Sequence[str] = ()
    ) -> None:
        async def work(db: Connection) -> None:
            async with db.transaction():
                if put:
                    keys, values = zip(*put, strict=True)
                    await db.execute(SQL["put_notes"], kind, list(keys), list(values))
                if drop:
                    await db.execute(SQL["drop_notes"], kind, list(drop))

        await self._ask(work)

    # -- the store that is moved to

    async def arrive(
        self, arrival: Arrival, values: SessionValues, parts: Sequence[Part]
    ) -> Reserved:
        return await self._ask(lambda db: arriving.arrive(db, arrival, values, parts))

    async def add(self, key: int, arrival: Arrival, parts: Sequence[Part]) -> None:
        await self._ask(lambda db: arriving.add(db, key, arrival, parts))

    async def finish(self, key: int, arrival: Arrival, values: SessionValues) -> None:
        await self._ask(lambda db: arriving.finish(db, key, arrival, values))
        self._ring(key)

    async def discard(self, arrival: Arrival) -> bool:
        key = await self._ask(lambda db: arriving.discard(db, arrival))
        while key and not await self._ask(lambda db: changing.remove_events(db, key)):
            continue
        return key is not None

    async def swap(self, table: str, rows: Sequence[Swap], source: str) -> list[bool]:
        return await self._ask(lambda db: arriving.swap(db, table, rows, source))

    async def add_receipts(
        self, receipts: Sequence[Chained], source: str, *, verbatim: bool
    ) -> None:
        await self._ask(lambda db: arriving.add_receipts(db, receipts, source, verbatim=verbatim))


async def _page(db: Connection, table: str, of: int, after: Values | None) -> list[Row]:
    layout = LAYOUTS[table]
    places = len(layout.first)
    values = (*(layout.first if after is None else after), *layout.bounds)
    asked = (of, *values) if table in OF_SESSION else values
    found = [tuple(each) for each in await db.fetch(SQL[f"page_{table}"], *asked)]
    rows = [Row(each[:places], each[layout.start :]) for each in found]
    if table == "memories":
        return [Row(each.place, arriving.memory(each.values)) for each in rows]
    return rows
