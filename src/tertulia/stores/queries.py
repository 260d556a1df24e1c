"""Reading: what a store promises to find, as SQL over one connection.

Every function runs its statements to the end before it returns, so that a reader's connection
never keeps a snapshot open.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import apsw

from tertulia.errors import StoreCorrupt
from tertulia.events import Record
from tertulia.stores import rows, sql
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
from tertulia.stores.database import Database, Values

SQL = sql.queries("read.sql")
MARKS = {"floor": SQL["floors"], "cut": SQL["cuts"], "hole": SQL["holes"]}


def find(db: Database, app: str | None, session_id: str) -> SessionRow | None:
    return _one(db, SQL["find"], (rows.scope_value(app), session_id))


def session(db: Database, key: int) -> SessionRow | None:
    return _one(db, SQL["row"], (key,))


def _one(db: Database, text: str, values: Values) -> SessionRow | None:
    found = db.execute(text, values).fetchall()
    return rows.session_row(found[0]) if found else None


def sessions(
    db: Database, user: str | None, due_before: int | None, values: dict[str, Any]
) -> list[SessionRow]:
    if user is not None:
        text = SQL["rows_of_user"]
    else:
        text = SQL["rows"] if due_before is None else SQL["rows_due"]
    values |= {"app": rows.scope_value(values["app"]), "user": user, "due_before": due_before}
    return [rows.session_row(found) for found in db.execute(text, values).fetchall()]


def children(db: Database, key: int) -> list[SessionRow]:
    return [rows.session_row(found) for found in db.execute(SQL["children"], (key,)).fetchall()]


def branch_at(db: Database, key: int, position: int) -> Branch | None:
    for values in db.execute(SQL["branch_at"], (key, position)).fetchall():
        return Branch(*values)
    return None


def chain(db: Database, key: int, low: int, high: int, limit: int) -> list[Segment]:
    values = {"session": key, "low": low, "high": high, "limit": limit}
    return [Segment(*found) for found in db.execute(SQL["chain"], values).fetchall()]


def marks(db: Database, segment: Segment, kind: MarkKind, below: int, limit: int) -> list[Mark]:
    values = {
        "session": segment.session,
        "low": segment.low,
        "high": segment.high,
        "below": below,
        "limit": limit,
    }
    return [Mark(*found) for found in db.execute(MARKS[kind], values).fetchall()]


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


def read(
    db: Database,
    reading: Reading,
    segments: Sequence[Segment],
    limit: int | None,
    chosen: Values = (),
) -> list[Record]:
    """Records of segments (newest first) in log order, at most `limit` from one end.

    Several segments are read in one transaction: to begin one costs more than a short segment.
    """
    if len(segments) < 2 or db.in_transaction:
        return _read_segments(db, reading, segments, limit, chosen)
    db.execute("BEGIN")
    try:
        return _read_segments(db, reading, segments, limit, chosen)
    finally:
        db.execute("COMMIT")


def _read_segments(
    db: Database,
    reading: Reading,
    segments: Sequence[Segment],
    limit: int | None,
    chosen: Values,
) -> list[Record]:
    result: list[Record] = []
    left = -1 if limit is None else limit
    for segment in segments if reading.newest else reversed(segments):
        if left == 0:
            break
        found = _read_segment(db, reading.text, segment, (left, *chosen))
        if reading.gapless:
            _check_gapless(db, segment, found, left, reading.newest)
        result += found
        if left > 0:
            left -= len(found)
    if reading.newest:
        result.reverse()
    return result


def _read_segment(db: Database, text: str, segment: Segment, bounds: Values) -> list[Record]:
    found: list[Record] = []
    values = (segment.session, segment.low, segment.high, *bounds)
    try:
        found.extend(Record(*row) for row in db.execute(text, values))
    except apsw.CorruptError as error:
        at = f"next to event {found[-1].seq}" if found else "at its first event"
        raise StoreCorrupt(
            f"session {segment.session}, events {segment.low + 1} to {segment.high}: the file is "
            f"damaged {at}; what lies before and after can be read in smaller pieces, or restore "
            "a backup"
        ) from error
    return found


def _check_gapless(
    db: Database, segment: Segment, found: list[Record], left: int, newest: bool
) -> None:
    """Raises StoreCorrupt where an event is missing in a session that was not deleted."""
    size = max(segment.high - segment.low, 0)
    expected = size if left < 0 else min(size, left)
    first = segment.high if newest else segment.low + 1
    step = -1 if newest else 1
    if len(found) == expected and (
        not found or (found[0].seq == first and found[-1].seq == first + step * (expected - 1))
    ):
        return
    if db.execute(SQL["is_deleted"], (segment.session,)).fetchall()[0][0]:
        return
    present = {record.seq for record in found}
    missing = next(n for n in range(first, first + step * size, step) if n not in present)
    raise StoreCorrupt(
        f"session {segment.session}: event {missing} is missing from the log; restore a backup"
    )


def count_messages(db: Database, segments: Sequence[Segment]) -> int:
    return sum(
        db.execute(SQL["count_messages"], (at.session, at.low, at.high)).fetchall()[0][0]
        for at in segments
    )


def state(db: Database, segments: Sequence[Segment], key: str) -> Record | None:
    for at in segments:
        values = {"session": at.session, "low": at.low, "high": at.high, "key": key}
        for found in db.execute(SQL["state"], values).fetchall():
            return Record(*found)
    return None


def state_keys(db: Database, segments: Sequence[Segment]) -> list[tuple[str, int]]:
    newest: dict[str, int] = {}
    for at in segments:
        values = {"session": at.session, "low": at.low, "high": at.high}
        for key, seq in db.execute(SQL["state_keys"], values).fetchall():
            newest.setdefault(key, seq)
    return sorted(newest.items())


def shared(
    db: Database, scope: SharedScope, app: str | None, user: str | None, key: str
) -> SharedValue | None:
    values = (scope, rows.scope_value(app), rows.scope_value(user), key)
    for found in db.execute(SQL["shared"], values).fetchall():
        return SharedValue(*found)
    return None


def shared_keys(
    db: Database, scope: SharedScope, app: str | None, user: str | None
) -> list[tuple[str, SharedValue]]:
    values = (scope, rows.scope_value(app), rows.scope_value(user))
    found = db.execute(SQL["shared_keys"], values).fetchall()
    return [(key, SharedValue(value, version)) for key, value, version in found]


def inputs(db: Database, key: int) -> list[Input]:
    return [
        Input(id=number, session=key, worker=worker, kind=kind, time=time, body=body)
        for number, _, worker, kind, time, body in db.execute(SQL["inputs"], (key,)).fetchall()
    ]


def request(db: Database, session_key: int, key: str) -> Request | None:
    for found in db.execute(SQL["request"], (session_key, key)).fetchall():
        _, digest, turn, status, result, time = found
        return Request(key=key, digest=digest, turn=turn, status=status, result=result, time=time)
    return None


def entity(db: Database, kind: str, key: str) -> SharedValue | None:
    for found in db.execute(SQL["entity"], (kind, key)).fetchall():
        return SharedValue(*found)
    return None


def receipts(db: Database) -> list[Receipt]:
    return [receipt for receipt, _ in receipts_with_digests(db)]


def receipts_with_digests(db: Database) -> list[tuple[Receipt, bytes]]:
    return [
        (Receipt(id=number, time=time, type=kind, body=body), digest)
        for number, time, kind, body, digest in db.execute(SQL["receipts"]).fetchall()
    ]


def incarnation(db: Database) -> str:
    return str(db.execute(SQL["incarnation"]).fetchall()[0][0])


def load_document(db: Database, session_id: str) -> str | None:
    for (data,) in db.execute(SQL["load_document"], (session_id,)).fetchall():
        return str(data)
    return None


def list_documents(db: Database) -> list[str]:
    return [str(found[0]) for found in db.execute(SQL["list_documents"]).fetchall()]
