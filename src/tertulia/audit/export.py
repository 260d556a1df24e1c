"""Exporting a log as JSON lines, so that the file can be checked alone.

Every line has `timestamp, role, message, metadata, tool_calls` (null where the event is no
message), then `seq, type, actor, turn, digest`, and what the digest is made of: `time` (in
microseconds), `salt` (hex) and `body` (the stored JSON as text), or `body_digest` (hex) where
the body was erased. The first line of a log also has `log`: whose it is and what its chain
begins with. The last line is the head: type `head`, the position and digest of the newest
event, how many lines there are before, what is known of the session (its metadata in
`metadata`), and a `seal`: SHA-256 of the rest of the line.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from typing import Any, Final, cast

import msgspec

from tertulia import events
from tertulia.clock import to_iso
from tertulia.codec import decode
from tertulia.errors import StoreCorrupt
from tertulia.events import MESSAGE_ADDED, Record

FILE_VERSION: Final = 1
HEAD: Final = "head"

_encoder = msgspec.json.Encoder()
_sorted = msgspec.json.Encoder(order="sorted")
_LINE_BREAKS: Final = str.maketrans({"\x85": "\\u0085", "\u2028": "\\u2028", "\u2029": "\\u2029"})


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Whose log it is; with a parent, its uid, the position of the fork and the digest there."""

    uid: bytes
    parent_uid: bytes | None = None
    base: int = 0
    parent_digest: bytes | None = None

    def start(self) -> bytes:
        """The digest that the first link covers."""
        if self.parent_uid is None or self.parent_digest is None:
            return events.genesis(self.uid)
        return events.branch(self.uid, self.parent_uid, self.base, self.parent_digest)

    def to_dict(self) -> dict[str, Any]:
        """The source as the `log` field of a line."""
        parent = None
        if self.parent_uid is not None and self.parent_digest is not None:
            parent = {
                "uid": self.parent_uid.hex(),
                "seq": self.base,
                "digest": self.parent_digest.hex(),
            }
        return {"tertulia": FILE_VERSION, "uid": self.uid.hex(), "parent": parent}


class Exporter:
    """Makes the lines of one file: `begin`, then `line` for each record, at last `head`.

    A fork may be exported with what it inherits: `begin` again where the next log begins.
    Lines have no line break at their end, and none inside.
    """

    def __init__(self, source: Source) -> None:
        self._events = 0
        self._seq = 0
        self._digest = b""
        self._source: Source | None = None
        self.begin(source)

    def begin(self, source: Source) -> None:
        """The records that follow are of this log."""
        self._source = source
        self._seq, self._digest = source.base, source.start()

    def line(self, record: Record) -> str:
        """The line of a record. Raises StoreCorrupt for a body that is not what was written."""
        source, self._source = self._source, None
        self._events += 1
        self._seq, self._digest = record.seq, record.digest
        return text_of(line_of(record, source))

    def head(self, now: int, session: Mapping[str, Any] | None = None) -> str:
        """The last line; `now` in microseconds, `session` is JSON-able data about the session."""
        facts = dict(session or {})
        data = _line(now, HEAD, self._seq, self._digest)
        data["metadata"] = facts.pop("metadata", None)
        data["events"] = self._events
        data["session"] = facts
        if self._source is not None:
            data["log"] = self._source.to_dict()
        data["seal"] = seal_of(data)
        return text_of(data)


def export_lines(
    source: Source,
    records: Iterable[Record],
    *,
    now: int,
    session: Mapping[str, Any] | None = None,
) -> Iterator[str]:
    """The lines of a file with the records of one log, the head last.

    `now` is the time of the export in microseconds. Raises StoreCorrupt.
    """
    exporter = Exporter(source)
    for record in records:
        yield exporter.line(record)
    yield exporter.head(now, session)


def line_of(record: Record, source: Source | None) -> dict[str, Any]:
    """The line of a record as data; with `source` where a log begins. Raises StoreCorrupt."""
    data = _line(record.time, record.type, record.seq, record.digest)
    data["actor"], data["turn"] = record.actor, record.turn
    if record.body is not None:
        data["salt"] = None if record.salt is None else record.salt.hex()
        data["body"] = _text(record)
    elif record.body_digest is not None:
        data["body_digest"] = record.body_digest.hex()
    if record.type == MESSAGE_ADDED and record.body is not None:
        message = decode(record.body, f"event {record.seq}")
        if not isinstance(message, dict):
            raise StoreCorrupt(f"event {record.seq} is not what was written: it is no message")
        message = cast("dict[str, Any]", message)
        data["role"] = message.get("role")
        data["message"] = message.get("content", "")
        data["metadata"] = message.get("metadata")
        data["tool_calls"] = message.get("tool_calls")
    if source is not None:
        data["log"] = source.to_dict()
    return data


def seal_of(head: Mapping[str, Any]) -> str:
    """SHA-256 of a head line without its seal, as hex."""
    return sha256(canonical({k: v for k, v in head.items() if k != "seal"})).hexdigest()


def canonical(value: Any) -> bytes:
    """JSON bytes that are the same for the same data, whatever the order of its keys."""
    return _sorted.encode(value)


def text_of(line: Mapping[str, Any]) -> str:
    """A line as text, without anything that a reader could take for a line break."""
    return _encoder.encode(line).decode().translate(_LINE_BREAKS)


def _line(time: int, kind: str, seq: int, digest: bytes) -> dict[str, Any]:
    return {
        "timestamp": to_iso(time),
        "role": None,
        "message": None,
        "metadata": None,
        "tool_calls": None,
        "seq": seq,
        "type": kind,
        "actor": None,
        "turn": None,
        "digest": digest.hex(),
        "time": time,
        "salt": None,
        "body": None,
        "body_digest": None,
    }


def _text(record: Record) -> str:
    try:
        return (record.body or b"").decode()
    except UnicodeDecodeError as error:
        raise StoreCorrupt(f"event {record.seq} is not what was written: {error}") from None
