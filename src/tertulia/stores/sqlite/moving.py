"""What a move reads and writes of a file."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

from tertulia.stores import engine, sql
from tertulia.stores.base import Receipt
from tertulia.stores.database import Database
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
from tertulia.stores.operations import EngineStore
from tertulia.stores.sqlite import arriving

T = TypeVar("T")
SQL = sql.queries("moving.sql")


class Layout(NamedTuple):
    """How the pages of a table are read: their places, and where the rows in them begin."""

    first: Values
    """Before all places."""
    start: int = 0


LAYOUTS = {
    "events": Layout((-1,)),
    "branches": Layout((-1,)),
    "marks": Layout(("", -1, -1, -1)),
    "session_state": Layout(("", -1)),
    "requests": Layout(("",)),
    "inbox": Layout((0,), 1),
    "shared_state": Layout(("", -1, -1, ""), 4),
    "entities": Layout(("", "")),
    "documents": Layout((0,), 1),
    "memory_owners": Layout((0,), 1),
    "memories": Layout((0,), 1),
}


class Read(Protocol):
    """Runs a query on a connection."""

    def __call__(self, query: Callable[[Database], T], /) -> T: ...


class Write(Protocol):
    """Runs in a transaction and rings the bells of a session."""

    def __call__(self, touched: int, run: Callable[[Database], T], /) -> Awaitable[T]: ...


class SQLiteMoves(EngineStore):
    """The part of a store that says how it is moved."""

    @property
    def moving(self) -> SQLiteMoving:
        """What a move reads and writes."""
        return SQLiteMoving(self._read, self._write)


class SQLiteMoving:
    """Each call is one transaction; sizes are bounded by the caller."""

    def __init__(self, read: Read, write: Write) -> None:
        self._read = read
        self._write = write

    # -- reading

    async def page(self, table: str, of: int = 0, after: Values | None = None) -> list[Row]:
        return self._read(lambda db: _page(db, table, of, after))

    async def sessions(self, after: int = 0) -> list[Row]:
        return self._read(
            lambda db: [
                Row(found[:1], found[1:])
                for found in db.execute(SQL["sessions"], (after, PAGE_ROWS)).fetchall()
            ]
        )

    async def session(self, uid: bytes) -> Row | None:
        return self._read(lambda db: arriving.session(db, uid))

    async def found(self, table: str, keys: Sequence[Values]) -> list[Values | None]:
        return self._read(lambda db: [arriving.find(db, table, key) for key in keys])

    async def notes(self, kind: str, after: str = "") -> list[tuple[str, bytes]]:
        return self._read(
            lambda db: [
                (key, value)
                for key, value in db.execute(SQL["notes"], (kind, after, PAGE_ROWS)).fetchall()
            ]
        )

    async def note(self, kind: str, key: str) -> bytes | None:
        return self._read(lambda db: arriving.note(db, kind, key))

    async def receipts(self, after: int) -> list[Chained]:
        return self._read(
            lambda db: [
                Chained(Receipt(id=number, time=time, type=kind, body=body), previous, digest)
                for number, time, kind, body, digest, previous in db.execute(
                    SQL["receipts"], (after, PAGE_ROWS)
                ).fetchall()
            ]
        )

    # -- the store that is moved from

    async def fence(self, key: int, fence: Values, name: str, note: bytes) -> bool:
        def run(db: Database) -> bool:
            db.execute(SQL["fence"], (key, *fence))
            if not db.changes():
                return False
            db.execute(SQL["put_note"], (MOVED, name, note))
            return True

        return await self._write(key, run)

    async def unfence(self, key: int, name: str, note: Note) -> None:
        def run(db: Database) -> None:
            db.execute(SQL["unfence"], (note.status, note.holder, note.due_at, key))
            db.execute(SQL["drop_note"], (MOVED, name))

        await self._write(key, run)

    async def write_notes(
        self, kind: str, put: Sequence[tuple[str, bytes]], drop: Sequence[str] = ()
    ) -> None:
        def run(db: Database) -> None:
            db.executemany(SQL["put_note"], [(kind, *each) for each in put])
            db.executemany(SQL["drop_note"], [(kind, each) for each in drop])

        await self._write(0, run)

    # -- the store that is moved to

    async def arrive(
        self, arrival: Arrival, values: SessionValues, parts: Sequence[Part]
    ) -> Reserved:
        return await self._write(0, lambda db: arriving.arrive(db, arrival, values, parts))

    async def add(self, key: int, arrival: Arrival, parts: Sequence[Part]) -> None:
        del arrival
        await self._write(0, lambda db: arriving.put(db, key, parts))

    async def finish(self, key: int, arrival: Arrival, values: SessionValues) -> None:
        await self._write(key, lambda db: arriving.finish(db, key, arrival, values))

    async def discard(self, arrival: Arrival) -> bool:
        key = await self._write(0, lambda db: arriving.discard(db, arrival))
        while key and not await self._write(0, lambda db: engine.remove_events(db, key)):
            continue
        return key is not None

    async def swap(self, table: str, rows: Sequence[Swap], source: str) -> list[bool]:
        return await self._write(
            0, lambda db: [arriving.swap(db, table, each, source) for each in rows]
        )

    async def add_receipts(
        self, receipts: Sequence[Chained], source: str, *, verbatim: bool
    ) -> None:
        await self._write(
            0, lambda db: arriving.add_receipts(db, receipts, source, verbatim=verbatim)
        )


def _page(db: Database, table: str, of: int, after: Values | None) -> list[Row]:
    layout = LAYOUTS[table]
    places = len(layout.first)
    values = (*(layout.first if after is None else after), PAGE_ROWS)
    cursor: Any = db.execute(SQL[f"page_{table}"], (of, *values) if table in OF_SESSION else values)
    rows: list[Row] = []
    room = PAGE_BYTES
    try:
        for found in cursor:
            rows.append(Row(found[:places], found[layout.start :]))
            room -= sum(len(each) for each in found if isinstance(each, bytes | str))
            if room < 0:
                break
    finally:
        cursor.close(True)
    if table == "memories":
        return [Row(at, (*values, arriving.sources(db, at[0]))) for at, values in rows]
    return rows
