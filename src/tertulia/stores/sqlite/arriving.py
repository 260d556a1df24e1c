"""Writing what is moved to a file, inside a transaction of the caller."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import msgspec

from tertulia.stores import engine, remembering, sql
from tertulia.stores.database import Database
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

SQL = sql.queries("moving.sql")


def session(db: Database, uid: bytes) -> Row | None:
    """The row of a session, and its key."""
    for found in db.execute(SQL["session"], (uid,)).fetchall():
        return Row(found[:1], found[1:])
    return None


def find(db: Database, table: str, key: Values) -> Values | None:
    """A row of a table of the store."""
    for found in db.execute(SQL[f"find_{table}"], key).fetchall():
        return (*found[1:], sources(db, found[0])) if table == "memories" else found
    return None


def note(db: Database, kind: str, key: str) -> bytes | None:
    """One note."""
    for (value,) in db.execute(SQL["note"], (kind, key)).fetchall():
        return cast("bytes | None", value)
    return None


def arrive(
    db: Database, arrival: Arrival, values: SessionValues, parts: Sequence[Part]
) -> Reserved:
    """Reserve a row for a session, or find the one that is, and write some of its rows."""
    found = db.execute(SQL["reserved"], (arrival.uid,)).fetchall()
    if found and note(db, ARRIVING, arrival.name) is None:
        raise there(values)
    if found:
        reserved = Reserved(found[0][0], found[0][1])
        db.execute(SQL["clear"], {"key": reserved.key})
    else:
        reserved = _reserve(db, arrival, values)
    put(db, reserved.key, parts)
    return reserved


def _reserve(db: Database, arrival: Arrival, values: SessionValues) -> Reserved:
    db.execute(SQL["reserve"], values.reservation)
    key = db.last_insert_rowid()
    db.execute(SQL["put_note"], (ARRIVING, arrival.name, str(key).encode()))
    return Reserved(key, values.base)


def put(db: Database, key: int, parts: Sequence[Part]) -> None:
    """Write rows of the tables of a session."""
    for table, rows in parts:
        db.executemany(SQL[f"put_{table}"], [(key, *row.values) for row in rows])


def finish(db: Database, key: int, arrival: Arrival, row: SessionValues) -> None:
    """Let a session be seen that is whole."""
    deleted = row.status == "deleted"
    if not deleted and db.execute(SQL["is_taken"], (row.app, row.id)).fetchall():
        raise taken(row)
    with engine.savepoint(db):
        db.execute(SQL["finish"], (*row.seen, key))
        if row.details is not None:
            db.execute(SQL["put_details"], (key, row.details))
        db.execute(SQL["drop_note"], (ARRIVING, arrival.name))
        db.execute(SQL["put_note"], (ARRIVED, arrival.name, b"1"))
        written = session(db, row.uid)
        if written is None or written.values != tuple(row):
            raise changed(row)


def discard(db: Database, arrival: Arrival) -> int | None:
    """The key of what is to be removed, 0 where there is nothing; None where it is seen."""
    found = db.execute(SQL["reserved"], (arrival.uid,)).fetchall()
    if not found:
        return 0
    if note(db, ARRIVING, arrival.name) is None:
        return None
    key = int(found[0][0])
    db.execute(SQL["discard"], (key,))
    db.execute(SQL["clear"], {"key": key})
    db.execute(SQL["drop_note"], (ARRIVING, arrival.name))
    return key


def swap(db: Database, table: str, change: Swap, source: str) -> bool:
    """Write a row of the store where what is there is what was expected."""
    key = change.new[: KEYS[table]]
    current = find(db, table, key)
    if table == "memory_owners":
        db.execute(SQL["swap_memory_owners"], change.new)
    elif current != change.new:
        if current != change.old:
            return False
        if table == "memories":
            scope, memory = memory_of(change.new)
            remembering.keep(db, scope, [memory])
        else:
            db.execute(SQL[f"swap_{table}"], change.new)
    name = f"{source}:{item_name(table, key)}"
    db.execute(SQL["put_note"], (ARRIVED, name, item_digest(change.new)))
    return True


def add_receipts(db: Database, receipts: Sequence[Chained], source: str, *, verbatim: bool) -> None:
    """Append receipts to the chain of this store."""
    name = f"{source}:receipts"
    last = int(note(db, MOVING, name) or 0)
    for each in receipts:
        if each.receipt.id <= last:
            continue
        found = db.execute(engine.SQL["newest_receipt"]).fetchall()
        if verbatim and (found[0][1] if found else b"") == each.previous:
            values = (*msgspec.structs.astuple(each.receipt), each.digest)
            db.execute(engine.SQL["add_receipt"], values)
        else:
            engine.add_receipt(db, noted_receipt(each))
        last = each.receipt.id
    db.execute(SQL["put_note"], (MOVING, name, str(last).encode()))


def sources(db: Database, memory: int) -> tuple[Values, ...]:
    """The events that a memory was taken from."""
    return tuple(db.execute(SQL["memory_sources"], (memory,)).fetchall())
