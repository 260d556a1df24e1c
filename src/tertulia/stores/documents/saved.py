"""A session as one document and back: what `to_dict` gives, and its rows of all tables beside it.

A reader who knows nothing of us finds the messages; we find the log.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple, cast

import msgspec

from tertulia.errors import StoreCorrupt, StoreTooNew
from tertulia.stores import engine, queries, rows, sql
from tertulia.stores.base import Branch, Details, Input, Mark, Request, SessionRow
from tertulia.stores.database import Database
from tertulia.stores.documents import shown

SQL = sql.queries(str(Path(__file__).with_name("documents.sql")))
FORMAT = 1
OURS = "tertulia"
"""The key under which a document has what only we read."""


class SavedEvent(msgspec.Struct, frozen=True, array_like=True):
    """One event; its body is kept as the text that it is, byte for byte."""

    seq: int
    type: str
    time: int
    actor: str
    turn: int
    body: str | None
    salt: bytes | None
    digest: bytes
    body_digest: bytes | None = None


class Saved(msgspec.Struct, frozen=True, kw_only=True):
    """The rows of one session. Keys are those of the process that saved it."""

    format: int = FORMAT
    worker: bytes
    row: SessionRow
    events: list[SavedEvent]
    branches: list[Branch]
    marks: list[Mark] = []
    state: list[tuple[str, int]] = []
    requests: list[Request] = []
    inbox: list[Input] = []
    lineage: list[SessionRow] = []
    """The sessions that it forked off, nearest first."""


class Stamp(NamedTuple):
    """What tells one state of a document from another."""

    revision: int
    digest: str
    worker: str


NOTHING = Stamp(0, "", "")
"""The stamp of a document that is not there."""


def stamp(data: Mapping[str, Any] | None) -> Stamp:
    """The stamp of a document, ours or one that `to_dict` gave."""
    if data is None:
        return NOTHING
    if OURS not in data:
        content = msgspec.json.encode(data, order="deterministic")
        return Stamp(0, sha256(content).hexdigest(), "")
    revision = data.get("revision")
    return Stamp(
        revision if isinstance(revision, int) else 0,
        str(part(data, "head").get("digest", "")),
        str(part(data, OURS).get("worker", "")),
    )


def part(data: Mapping[str, Any] | None, name: str) -> dict[str, Any]:
    """A mapping inside of a document; empty where there is none."""
    found: Any = (data or {}).get(name)
    return dict(cast("Mapping[str, Any]", found)) if isinstance(found, Mapping) else {}


def dump(db: Database, row: SessionRow, worker: bytes, revision: int) -> dict[str, Any]:
    """The document of a session; JSON-able."""
    saved = Saved(
        worker=worker,
        row=row,
        events=[_saved_event(values) for values in db.execute(SQL["events"], (row.key,))],
        branches=[Branch(*values) for values in db.execute(SQL["branches"], (row.key,))],
        marks=[Mark(*values) for values in db.execute(SQL["marks"], (row.key,))],
        state=[(key, seq) for key, seq in db.execute(SQL["state"], (row.key,))],
        requests=[_request(values) for values in db.execute(SQL["requests"], (row.key,))],
        inbox=queries.inputs(db, row.key),
        lineage=_lineage(db, row),
    )
    return {**shown.data(db, row), "revision": revision, OURS: msgspec.to_builtins(saved)}


def parse(data: Mapping[str, Any], name: str) -> Saved:
    """The rows in a document of ours. Raises StoreCorrupt and StoreTooNew."""
    number = part(data, OURS).get("format")
    if isinstance(number, int) and number > FORMAT:
        raise StoreTooNew(
            f"document {name!r} has format {number}, written by a newer Tertulia; this one reads "
            f"up to {FORMAT}"
        )
    try:
        return msgspec.convert(data[OURS], Saved)
    except msgspec.ValidationError as error:
        raise StoreCorrupt(
            f"document {name!r} is not what was saved: {error}; restore it, or remove its key "
            f"{OURS!r} to begin anew with the messages that it shows"
        ) from error


def insert(
    db: Database, saved: Saved, keys: Mapping[int, int], key: int | None, worker: bytes
) -> int:
    """Write the rows of a session, under `key` if it has one already; gives the key.

    `keys` translates the keys of its lineage. The inputs of `worker` stay as they are.
    """
    row = saved.row
    here = msgspec.structs.replace(row, parent=there(keys, row.parent))
    key = _put_row(db, here, key)
    known = {**keys, row.key: key}
    db.execute(SQL["unload"], {"key": key, "worker": worker})
    engine.add_events(db, (_event(key, event) for event in saved.events))
    for branch in saved.branches:
        _, low, parent, parent_low, parent_high = msgspec.structs.astuple(branch)
        values = (key, low, there(known, parent), parent_low, parent_high)
        db.execute(engine.SQL["add_branch"], values)
    for mark in saved.marks:
        db.execute(engine.SQL["add_mark"], (key, mark.kind, mark.low, mark.high, mark.at))
    for name, seq in saved.state:
        db.execute(engine.SQL["add_state"], (key, name, seq))
    for request in saved.requests:
        db.execute(engine.SQL["put_request"], rows.request_values(key, request))
    return key


def there(keys: Mapping[int, int], key: int | None) -> int | None:
    """What another process called `key`."""
    return None if key is None else keys.get(key)


def insert_stub(db: Database, row: SessionRow, parent: int | None) -> int:
    """Write the row of a session that is gone, for those that stand on it."""
    stub = msgspec.structs.replace(
        row, parent=parent, status="deleted", id="", user=None, due_at=None, details=Details()
    )
    return _put_row(db, stub, None)


def _put_row(db: Database, row: SessionRow, key: int | None) -> int:
    values = (*rows.head_values(row), *rows.rare_values(row), *rows.birth_values(row))
    db.execute(SQL["put_key"], (key, *values))
    key = db.last_insert_rowid() if key is None else key
    db.execute(engine.SQL["put_details"], (key, rows.details_text(row.details)))
    return key


def _saved_event(values: Sequence[Any]) -> SavedEvent:
    seq, kind, time, actor, turn, body, salt, digest, of_body = values
    text = None if body is None else body.decode()
    return SavedEvent(seq, kind, time, actor, turn, text, salt, digest, of_body)


def _event(key: int, event: SavedEvent) -> tuple[Any, ...]:
    values = msgspec.structs.astuple(event)
    body: str | None = values[5]
    return (key, *values[:5], None if body is None else body.encode(), *values[6:])


def _request(values: Sequence[Any]) -> Request:
    key, digest, turn, status, result, time = values
    return Request(key=key, digest=digest, turn=turn, status=status, result=result, time=time)


def _lineage(db: Database, row: SessionRow) -> list[SessionRow]:
    found: list[SessionRow] = []
    while row.parent is not None:
        parent = queries.session(db, row.parent)
        if parent is None:
            break
        found.append(msgspec.structs.replace(parent, details=Details()))
        row = parent
    return found
