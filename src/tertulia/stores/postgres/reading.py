"""Reading: what a store promises to find, as SQL over one connection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from tertulia.errors import StoreCorrupt
from tertulia.events import Record
from tertulia.stores import rows as row
from tertulia.stores.base import (
    Branch,
    Input,
    Mark,
    MarkKind,
    Receipt,
    Request,
    Segment,
    SessionRow,
    SharedScope,
    SharedValue,
)
from tertulia.stores.postgres import sql
from tertulia.stores.postgres.driver import Connection, Row
from tertulia.stores.postgres.rows import name

SQL = sql.queries("read.sql")
MARKS = {"floor": SQL["floors"], "cut": SQL["cuts"], "hole": SQL["holes"]}


async def find(db: Connection, app: str | None, session_id: str) -> SessionRow | None:
    return _one(await db.fetch(SQL["find"], name(app), session_id))


async def session(db: Connection, key: int) -> SessionRow | None:
    return _one(await db.fetch(SQL["row"], key))


def _one(found: list[Row]) -> SessionRow | None:
    return row.session_row(found[0]) if found else None


async def sessions(
    db: Connection, user: str | None, due_before: int | None, page: tuple[int, str | None, int]
) -> list[SessionRow]:
    if user is not None:
        found = await db.fetch(SQL["rows_of_user"], *page, user, due_before)
    elif due_before is not None:
        found = await db.fetch(SQL["rows_due"], *page, due_before)
    else:
        found = await db.fetch(SQL["rows"], *page)
    return [row.session_row(each) for each in found]


async def children(db: Connection, key: int) -> list[SessionRow]:
    return [row.session_row(each) for each in await db.fetch(SQL["children"], key)]


async def branch_at(db: Connection, key: int, position: int) -> Branch | None:
    for values in await db.fetch(SQL["branch_at"], key, position):
        return Branch(*values)
    return None


async def chain(db: Connection, key: int, low: int, high: int, limit: int) -> list[Segment]:
    return [Segment(*each) for each in await db.fetch(SQL["chain"], key, low, high, limit)]


async def marks(
    db: Connection, segment: Segment, kind: MarkKind, below: int, limit: int
) -> list[Mark]:
    place = (segment.session, segment.low, segment.high)
    return [Mark(*each) for each in await db.fetch(MARKS[kind], *place, below, limit)]


class Reading(NamedTuple):
    """A way to read segments: from which end, and whether a missing event would be a fault."""

    text: str
    newest: bool
    gapless: bool = False


MESSAGES = {
    True: Reading(SQL["newest_messages"], True),
    False: Reading(SQL["oldest_messages"], False),
}
RECORDS = {
    True: Reading(SQL["newest_records"], True, gapless=True),
    False: Reading(SQL["oldest_records"], False, gapless=True),
}
CHOSEN = {
    True: Reading(SQL["newest_chosen"], True),
    False: Reading(SQL["oldest_chosen"], False),
}


async def read(
    db: Connection,
    reading: Reading,
    segments: Sequence[Segment],
    limit: int | None,
    *chosen: Any,
) -> list[Record]:
    """Records of segments (newest first) in log order, at most `limit` from one end."""
    found = await db.fetch(reading.text, *_arrays(segments), limit, *chosen)
    parts = [list[Record]() for _ in segments]
    for each in found:
        parts[int(each[0]) - 1].append(Record(*each[1:]))
    if reading.gapless:
        await _check_gapless(db, reading, segments, parts, limit)
    result = [each for part in (parts if reading.newest else reversed(parts)) for each in part]
    if reading.newest:
        result.reverse()
    return result


async def _check_gapless(
    db: Connection,
    reading: Reading,
    segments: Sequence[Segment],
    parts: list[list[Record]],
    limit: int | None,
) -> None:
    """Raises StoreCorrupt where an event is missing in a session that was not deleted."""
    pairs = list(zip(segments, parts, strict=True))
    left = limit
    for segment, part in pairs if reading.newest else reversed(pairs):
        size = max(segment.high - segment.low, 0)
        expected = size if left is None else min(size, left)
        if not _is_gapless(segment, part, expected, newest=reading.newest):
            await _report_gap(db, segment, part, newest=reading.newest)
        if left is not None:
            left -= len(part)


def _is_gapless(segment: Segment, part: list[Record], expected: int, *, newest: bool) -> bool:
    if len(part) != expected or not part:
        return len(part) == expected
    first, step = (segment.high, -1) if newest else (segment.low + 1, 1)
    return part[0].seq == first and part[-1].seq == first + step * (expected - 1)


async def _report_gap(
    db: Connection, segment: Segment, part: list[Record], *, newest: bool
) -> None:
    if (await db.fetch(SQL["is_deleted"], segment.session))[0][0]:
        return
    present = {record.seq for record in part}
    positions = range(segment.low + 1, segment.high + 1)
    missing = next(n for n in (reversed(positions) if newest else positions) if n not in present)
    raise StoreCorrupt(
        f"session {segment.session}: event {missing} is missing from the log; restore a backup"
    )


def _arrays(segments: Sequence[Segment]) -> tuple[list[int], list[int], list[int]]:
    return (
        [each.session for each in segments],
        [each.low for each in segments],
        [each.high for each in segments],
    )


async def count_messages(db: Connection, segments: Sequence[Segment]) -> int:
    [(count,)] = await db.fetch(SQL["count_messages"], *_arrays(segments))
    return int(count)


async def state(db: Connection, segments: Sequence[Segment], key: str) -> Record | None:
    for found in await db.fetch(SQL["state"], *_arrays(segments), key):
        return Record(*found)
    return None


async def state_keys(db: Connection, segments: Sequence[Segment]) -> list[tuple[str, int]]:
    found = await db.fetch(SQL["state_keys"], *_arrays(segments))
    return [(key, seq) for key, seq in found]


async def shared(
    db: Connection, scope: SharedScope, app: str | None, user: str | None, key: str
) -> SharedValue | None:
    for found in await db.fetch(SQL["shared"], scope, name(app), name(user), key):
        return SharedValue(*found)
    return None


async def shared_keys(
    db: Connection, scope: SharedScope, app: str | None, user: str | None
) -> list[tuple[str, SharedValue]]:
    found = await db.fetch(SQL["shared_keys"], scope, name(app), name(user))
    return [(key, SharedValue(value, version)) for key, value, version in found]


async def inputs(db: Connection, key: int) -> list[Input]:
    return [
        Input(id=number, session=key, worker=worker, kind=kind, time=time, body=body)
        for number, _, worker, kind, time, body in await db.fetch(SQL["inputs"], key)
    ]


async def request(db: Connection, session_key: int, key: str) -> Request | None:
    for found in await db.fetch(SQL["request"], session_key, key):
        _, digest, turn, status, result, time = found
        return Request(key=key, digest=digest, turn=turn, status=status, result=result, time=time)
    return None


async def entity(db: Connection, kind: str, key: str) -> SharedValue | None:
    for found in await db.fetch(SQL["entity"], kind, key):
        return SharedValue(*found)
    return None


async def receipts(db: Connection) -> list[Receipt]:
    return [
        Receipt(id=number, time=time, type=kind, body=body)
        for number, time, kind, body in await db.fetch(SQL["receipts"])
    ]


async def load_document(db: Connection, session_id: str) -> str | None:
    for (data,) in await db.fetch(SQL["load_document"], session_id):
        return str(data)
    return None


async def list_documents(db: Connection) -> list[str]:
    return [str(found[0]) for found in await db.fetch(SQL["list_documents"])]
