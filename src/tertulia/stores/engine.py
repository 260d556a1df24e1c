"""Writing: what a change does to the tables, as SQL over one connection.

Functions here run inside a transaction of their caller. One that refuses raises an AgentError
and has written nothing; after any other error the caller must roll back.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from hashlib import sha256
from typing import Any, TypeVar

import msgspec

from tertulia.errors import SessionExists, StaleWriter, VersionConflict
from tertulia.events import body_digest
from tertulia.stores import queries, remembering, sql
from tertulia.stores import rows as row
from tertulia.stores.base import Change, Input, Receipt, Segment, SessionRow, SharedWrite
from tertulia.stores.database import Database, Values

SQL = sql.queries("write.sql")
ERASE_AT_ONCE = 500
"""Events that one transaction erases or removes, so that others need not wait for long."""

T = TypeVar("T")


def migrate(db: Database, version: int) -> int:
    """Bring the schema from a version to ours, which is returned."""
    scripts = sql.migrations()
    for script in scripts[version:]:
        db.execute(script)
    return len(scripts)


def prepare(db: Database) -> None:
    """Give a connection the functions that writing needs."""
    db.create_scalar_function("salted_digest", body_digest, 2, deterministic=True)


def event_values(change: Change, key: int) -> list[Values]:
    """The rows of a change's events, as `add_events` takes them."""
    return [(key, *msgspec.structs.astuple(record)) for record in change.records]


def is_plain(change: Change) -> bool:
    """Whether a change is an advance of the row and its events, and nothing else."""
    before, after = change.before, change.after
    return not (
        change.create
        or change.marks
        or change.state
        or change.shared
        or change.branch is not None
        or change.extend_cut is not None
        or change.take
        or change.request is not None
        or after.details is not before.details
        or after.due_at != before.due_at
        or after.status != before.status
        or after.user != before.user
    )


def advance(db: Database, values: Values) -> bool:
    """Move the head of a session from its fence; False when the fence does not hold."""
    db.execute(SQL["advance"], values)
    return db.changes() == 1


def add_events(db: Database, values: Iterable[Values]) -> None:
    db.executemany(SQL["add_event"], values)


def stale(before: SessionRow) -> StaleWriter:
    return StaleWriter(
        f"session {before.id!r} is not at event {before.seq} with this writer any more; nothing "
        "was written: read it again",
        session_id=before.id,
    )


def apply(db: Database, change: Change) -> tuple[SessionRow, list[Values]]:
    """Write all of a change but its events; the row after it, and the events to add."""
    if not _may_refuse_late(change):
        return _apply(db, change)
    with savepoint(db):
        return _apply(db, change)


def _may_refuse_late(change: Change) -> bool:
    return bool(change.take) or any(write.expect is not None for write in change.shared)


@contextmanager
def savepoint(db: Database) -> Generator[None]:
    """Undo what was written inside when it raises; costs two statements."""
    db.execute("SAVEPOINT change")
    try:
        yield
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK TO change")
            db.execute("RELEASE change")
        raise
    db.execute("RELEASE change")


def _apply(db: Database, change: Change) -> tuple[SessionRow, list[Values]]:
    after = _create(db, change.after) if change.create else _update(db, change)
    key = after.key
    if change.branch is not None:
        _, *branch = msgspec.structs.astuple(change.branch)
        db.execute(SQL["add_branch"], (change.branch.session or key, *branch))
    if change.extend_cut is not None:
        old, new = change.extend_cut
        db.execute(SQL["extend_cut"], (new, key, old))
    for mark in change.marks:
        db.execute(SQL["add_mark"], (key, mark.kind, mark.low, mark.high, mark.at))
    for name, seq in change.state:
        db.execute(SQL["add_state"], (key, name, seq))
    if change.request is not None:
        db.execute(SQL["put_request"], row.request_values(key, change.request))
    for number in change.take:
        _take_input(db, change.before, number, key)
    _write_shared(db, change.shared)
    return after, event_values(change, key)


def _create(db: Database, after: SessionRow) -> SessionRow:
    values = row.head_values(after) + row.rare_values(after) + row.birth_values(after)
    db.execute(SQL["create"], values)
    if not db.changes():
        raise SessionExists(f"session {after.id!r} exists already", session_id=after.id)
    key = db.last_insert_rowid()
    if after.details != row.NO_DETAILS:
        db.execute(SQL["put_details"], (key, row.details_text(after.details)))
    return msgspec.structs.replace(after, key=key)


def _update(db: Database, change: Change) -> SessionRow:
    before, after = change.before, change.after
    if not advance(db, row.head_values(after) + row.fence(before)):
        raise stale(before)
    rare = row.rare_values(after)
    if rare != row.rare_values(before):
        db.execute(SQL["change_rarely"], (*rare, after.key))
    if after.details is not before.details and after.details != before.details:
        db.execute(SQL["put_details"], (after.key, row.details_text(after.details)))
    return after


def _take_input(db: Database, before: SessionRow, number: int, key: int) -> None:
    db.execute(SQL["take_input"], (number, key))
    if not db.changes():
        raise StaleWriter(
            f"an input of session {before.id!r} was withdrawn; nothing was written: read the "
            "inbox again",
            session_id=before.id,
        )


def _write_shared(db: Database, writes: Sequence[SharedWrite]) -> None:
    for write in sorted(
        writes, key=lambda one: (one.scope, one.app or "", one.user or "", one.key)
    ):
        db.execute(SQL["write_shared"], row.shared_values(write))
        if not db.changes():
            found = queries.shared(db, write.scope, write.app, write.user, write.key)
            raise _conflict(f"{write.scope} state {write.key!r}", write.expect or 0, found)


def _conflict(what: str, expected: int, found: Any) -> VersionConflict:
    actual = found.version if found else 0
    return VersionConflict(
        f"{what} is at version {actual}, not {expected}; nothing was written: read it again "
        "and repeat",
        expected=expected,
        actual=actual,
    )


def put_input(db: Database, entry: Input) -> Input:
    values = (entry.session, entry.worker, entry.kind, entry.time, entry.body)
    ((number,),) = db.execute(SQL["put_input"], values).fetchall()
    return msgspec.structs.replace(entry, id=number)


def drop_inputs(db: Database, numbers: Sequence[int]) -> int:
    before = db.total_changes()
    db.executemany(SQL["drop_input"], [(number,) for number in numbers])
    return db.total_changes() - before


def drop_requests(db: Database, before: int) -> int:
    """Drop some; how many, fewer than ERASE_AT_ONCE when none is left."""
    db.execute(SQL["drop_requests"], (before, ERASE_AT_ONCE))
    return db.changes()


def put_entity(db: Database, kind: str, key: str, value: bytes | None, expect: int) -> int:
    values = {"kind": kind, "key": key, "value": value, "expect": expect}
    for (version,) in db.execute(SQL["put_entity"], values).fetchall():
        return int(version)
    raise _conflict(f"{kind} {key!r}", expect, queries.entity(db, kind, key))


def erase(db: Database, segment: Segment, types: str | None) -> int:
    """Erase some bodies of a segment; how many, fewer than ERASE_AT_ONCE when none is left.

    What was remembered of them goes too.
    """
    values = {
        "session": segment.session,
        "low": segment.low,
        "high": segment.high,
        "types": types,
        "limit": ERASE_AT_ONCE,
    }
    db.execute(SQL["erase_bodies"], values)
    erased = db.changes()
    if erased:
        remembering.forget_erased(db, segment)
    return erased


def erase_user(db: Database, user: str, receipt: Receipt) -> int:
    erased = forget_user(db, user)
    add_receipt(db, receipt)
    return erased


def forget_user(db: Database, user: str) -> int:
    """Remove a user's shared state and memories in every app; how many values and memories."""
    db.execute(SQL["erase_user"], (user,))
    return db.changes() + remembering.forget_user(db, user)


def add_receipt(db: Database, receipt: Receipt) -> None:
    newest = db.execute(SQL["newest_receipt"]).fetchall()
    number, previous = newest[0] if newest else (0, b"")
    receipt = msgspec.structs.replace(receipt, id=number + 1)
    digest = sha256(previous + row.receipt_header(receipt)).digest()
    db.execute(SQL["add_receipt"], (receipt.id, receipt.time, receipt.type, receipt.body, digest))


def delete_session(db: Database, before: SessionRow, receipt: Receipt | None, stub: bool) -> None:
    """Make a session unfindable and note it; `remove_events` takes its events away."""
    hide_session(db, before, stub)
    if receipt is not None:
        add_receipt(db, receipt)


def hide_session(db: Database, before: SessionRow, stub: bool) -> None:
    db.execute(SQL["mark_deleted"], row.fence(before))
    if not db.changes():
        raise stale(before)
    if stub:
        db.execute(SQL["forget_visible"], (before.key,))
    remembering.forget_session(db, before.uid)
    db.execute(SQL["empty_session"], {"key": before.key, "stub": stub})


def remove_events(db: Database, key: int) -> bool:
    """Remove some events of a deleted session; True when the removal is finished."""
    db.execute(SQL["remove_events"], (key, ERASE_AT_ONCE))
    if db.changes() == ERASE_AT_ONCE:
        return False
    db.execute(SQL["finish_removal"], {"key": key})
    return True


def next_removal(db: Database) -> int | None:
    """A deleted session whose removal was not finished."""
    for (key,) in db.execute(queries.SQL["removals"]).fetchall():
        return int(key)
    return None


def save_document(db: Database, session_id: str, data: str) -> None:
    db.execute(SQL["save_document"], (session_id, data))


def delete_document(db: Database, session_id: str) -> bool:
    db.execute(SQL["delete_document"], (session_id,))
    return db.changes() == 1


def atomically(db: Database, run: Callable[..., T], *args: Any) -> T:
    """Run one function in a transaction of its own."""
    db.execute("BEGIN IMMEDIATE")
    try:
        result = run(db, *args)
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
    return result
