"""Writing what is moved to a database; functions with several statements are transactions."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import msgspec

from tertulia.stores.moving import (
    ARRIVED,
    ARRIVING,
    KEYS,
    MOVING,
    Arrival,
    Chained,
    Part,
    Reserved,
    Row,
    SessionValues,
    Swap,
    Values,
    changed,
    item_digest,
    item_name,
    memory_of,
    noted_receipt,
    taken,
    there,
)
from tertulia.stores.postgres import changing, remembering, sql
from tertulia.stores.postgres.driver import Connection, module
from tertulia.stores.postgres.writing import affected
from tertulia.stores.vectors import packed

SQL = sql.queries("moving.sql")


async def session(db: Connection, uid: bytes) -> Row | None:
    """The row of a session, and its key."""
    for found in await db.fetch(SQL["session"], uid):
        values = tuple(found)
        return Row(values[:1], values[1:])
    return None


async def find(db: Connection, table: str, key: Values) -> Values | None:
    """A row of a table of the store."""
    for found in await db.fetch(SQL[f"find_{table}"], *key):
        return memory(tuple(found)) if table == "memories" else tuple(found)
    return None


async def note(db: Connection, kind: str, key: str) -> bytes | None:
    """One note."""
    for (value,) in await db.fetch(SQL["note"], kind, key):
        return value
    return None


def memory(found: Values) -> Values:
    """A memory as it is carried: its vector as bytes, its sources in pairs."""
    *values, vector, sessions, positions = found
    sources = tuple(zip(sessions or (), positions or (), strict=True))
    return (*values, None if vector is None else packed(vector), sources)


async def arrive(
    db: Connection, arrival: Arrival, values: SessionValues, parts: Sequence[Part]
) -> Reserved:
    """Reserve a row for a session, or find the one that is, and write some of its rows."""
    async with db.transaction():
        found = await db.fetch(SQL["reserved"], arrival.uid)
        if found and await note(db, ARRIVING, arrival.name) is None:
            raise there(values)
        if found:
            reserved = Reserved(*found[0])
            await _clear(db, reserved.key)
        else:
            reserved = await _reserve(db, arrival, values)
        await _put(db, reserved.key, arrival, parts)
    return reserved


async def _reserve(db: Connection, arrival: Arrival, row: SessionValues) -> Reserved:
    [(key,)] = await db.fetch(SQL["reserve"], *row.reservation)
    await db.execute(SQL["put_notes"], ARRIVING, [arrival.name], [str(key).encode()])
    return Reserved(key, row.base)


async def _clear(db: Connection, key: int) -> None:
    for table in ("branches", "marks", "session_state", "requests", "inbox"):
        await db.execute(SQL[f"clear_{table}"], key)


async def add(db: Connection, key: int, arrival: Arrival, parts: Sequence[Part]) -> None:
    """Write more rows of a session."""
    async with db.transaction():
        await _put(db, key, arrival, parts)


async def _put(db: Connection, key: int, arrival: Arrival, parts: Sequence[Part]) -> None:
    for table, rows in parts:
        columns: list[Any] = [
            list(each) for each in zip(*[row.values for row in rows], strict=True)
        ]
        if table == "inbox":
            columns.append([_token(arrival, row.place[0]) for row in rows])
        if columns:
            await db.execute(SQL[f"put_{table}"], key, *columns)


def _token(arrival: Arrival, number: int) -> bytes:
    """The same for the same input, so that it is not written twice."""
    return sha256(f"{arrival.name}\0{number}".encode()).digest()[:16]


async def finish(db: Connection, key: int, arrival: Arrival, row: SessionValues) -> None:
    """Let a session be seen that is whole."""
    unique: Any = module("asyncpg.exceptions").UniqueViolationError
    try:
        async with db.transaction():
            if await note(db, ARRIVED, arrival.name) is None:
                await _finish(db, key, arrival, row)
    except unique:
        raise taken(row) from None


async def _finish(db: Connection, key: int, arrival: Arrival, row: SessionValues) -> None:
    if row.status != "deleted" and await db.fetch(SQL["is_taken"], row.app, row.id):
        raise taken(row)
    await db.execute(SQL["finish"], key, *row.seen)
    if row.details is not None:
        await db.execute(SQL["put_details"], key, row.details)
    await db.execute(SQL["drop_notes"], ARRIVING, [arrival.name])
    await db.execute(SQL["put_notes"], ARRIVED, [arrival.name], [b"1"])
    written = await session(db, row.uid)
    if written is None or written.values != tuple(row):
        raise changed(row)


async def discard(db: Connection, arrival: Arrival) -> int | None:
    """The key of what is to be removed, 0 where there is nothing; None where it is seen."""
    async with db.transaction():
        found = await db.fetch(SQL["reserved"], arrival.uid)
        if not found:
            return 0
        if await note(db, ARRIVING, arrival.name) is None:
            return None
        key = int(found[0][0])
        await db.execute(SQL["discard"], key)
        await _clear(db, key)
        await db.execute(SQL["drop_notes"], ARRIVING, [arrival.name])
    return key


async def swap(db: Connection, table: str, rows: Sequence[Swap], source: str) -> list[bool]:
    """Write some rows of the store, each where what is there is what was expected."""
    async with db.transaction():
        done = [await _swap(db, table, each) for each in rows]
        new = [each.new for each, kept in zip(rows, done, strict=True) if kept]
        if new:
            names = [f"{source}:{item_name(table, each[: KEYS[table]])}" for each in new]
            digests = [item_digest(each) for each in new]
            await db.execute(SQL["put_notes"], ARRIVED, names, digests)
    return done


async def _swap(db: Connection, table: str, change: Swap) -> bool:
    new, old = change.new, change.old
    if table == "memory_owners":
        await db.execute(SQL["add_memory_owners"], *new)
        return True
    current = await find(db, table, new[: KEYS[table]])
    if current == new:
        return True
    if current != old:
        return False
    if table == "memories":
        scope, kept = memory_of(new)
        await remembering.keep(db, scope, [kept])
        return True
    if old is None:
        return bool(affected(await db.execute(SQL[f"add_{table}"], *new)))
    return bool(affected(await db.execute(SQL[f"change_{table}"], *new, old[-1])))


async def add_receipts(
    db: Connection, receipts: Sequence[Chained], source: str, *, verbatim: bool
) -> None:
    """Append receipts to the chain of this store."""
    name = f"{source}:receipts"
    async with db.transaction():
        await db.execute(changing.SQL["lock_receipts"])
        last = int(await note(db, MOVING, name) or 0)
        for each in receipts:
            if each.receipt.id <= last:
                continue
            found = await db.fetch(changing.SQL["newest_receipt"])
            if verbatim and (found[0][1] if found else b"") == each.previous:
                values = (*msgspec.structs.astuple(each.receipt), each.digest)
                await db.execute(changing.SQL["add_receipt"], *values)
            else:
                await changing.add_receipt(db, noted_receipt(each))
            last = each.receipt.id
        await db.execute(SQL["put_notes"], MOVING, [name], [str(last).encode()])
