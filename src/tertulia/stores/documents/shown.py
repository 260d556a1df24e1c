"""What a document says to a reader who knows nothing of logs: the fields of `to_dict`."""

from __future__ import annotations

import json
from typing import Any

from tertulia import history
from tertulia.clock import to_datetime
from tertulia.events import STATE_SET, Record
from tertulia.stores import queries
from tertulia.stores.base import Mark, Segment, SessionRow
from tertulia.stores.database import Database

VERSION = 1
_EVERYTHING = 2**62
_DEEPEST = 1_000_000


def data(db: Database, row: SessionRow) -> dict[str, Any]:
    """The fields of a session; its running turn is not in them."""
    end = row.seq if row.open_turn is None else row.open_turn - 1
    chain = queries.chain(db, row.key, row.branch, end, _DEEPEST)
    return {
        "version": VERSION,
        "session_id": row.id,
        "app_name": row.app,
        "user_id": row.user,
        "metadata": row.details.metadata,
        "retention": row.details.retention,
        "system": row.details.system,
        "messages": _messages(db, chain),
        "state": _state(db, chain),
        "head": {"uid": row.uid.hex(), "seq": row.seq, "digest": row.digest.hex()},
    }


def _messages(db: Database, chain: list[Segment]) -> list[dict[str, Any]]:
    holes = [
        (mark.low, mark.high)
        for segment in chain
        for mark in queries.marks(db, segment, "hole", _EVERYTHING, _DEEPEST)
    ]
    parts: list[Segment] = []
    floor: Mark | None = None
    summary: list[dict[str, Any]] = []
    for segment in chain:
        if floor is not None and floor.high >= segment.high:
            break
        if floor is None:
            floors = queries.marks(db, segment, "floor", _EVERYTHING, 1)
            floor = floors[0] if floors else None
            summary = _summary(db, segment, floor)
        cuts = queries.marks(db, segment, "cut", _EVERYTHING, _DEEPEST)
        gaps = [(cut.low, cut.high) for cut in cuts] + holes
        parts += history.subtract(segment, gaps, floor.high if floor else 0)
    records = queries.read(db, queries.MESSAGES[True], parts, None)
    return [*summary, *(_message(record) for record in records)]


def _message(record: Record) -> dict[str, Any]:
    body = json.loads(record.body or b"{}")
    return {"id": f"{record.digest.hex()[:12]}-{record.seq}", **body, **_place(record)}


def _summary(db: Database, segment: Segment, floor: Mark | None) -> list[dict[str, Any]]:
    if floor is None:
        return []
    at = Segment(segment.session, floor.at - 1, floor.at)
    [record] = queries.read(db, queries.RECORDS[False], [at], None)
    text = json.loads(record.body or b"{}").get("summary")
    if not isinstance(text, str):
        return []
    return [
        {
            "role": "system",
            "content": text,
            "metadata": {"summary_of": [1, floor.high]},
            "id": f"{record.digest.hex()[:12]}-{floor.at}",
            **_place(record),
        }
    ]


def _place(record: Record) -> dict[str, Any]:
    return {"seq": record.seq, "timestamp": to_datetime(record.time).isoformat()}


def _state(db: Database, chain: list[Segment]) -> dict[str, Any]:
    state: dict[str, Any] = {}
    for key, _ in queries.state_keys(db, chain):
        record = queries.state(db, chain, key)
        if record is not None and record.type == STATE_SET and record.body is not None:
            state[key] = json.loads(record.body).get("value")
    return state
