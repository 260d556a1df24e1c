"""Checking an exported file alone, line by line, in constant memory."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import msgspec

from tertulia.audit.chain import ChainChecker, Verification
from tertulia.audit.export import FILE_VERSION, HEAD, Source, canonical, line_of, seal_of, text_of
from tertulia.clock import to_iso
from tertulia.errors import StoreCorrupt
from tertulia.events import Record

_HEAD_FIELDS: frozenset[str] = frozenset(
    "timestamp role message metadata tool_calls seq type actor turn digest time salt body "
    "body_digest events session seal".split()
)


class _Bad(Exception):
    """The line is not one that was exported."""


class _Facts(msgspec.Struct):
    """What a record is made of again; the rest of the line must follow from it."""

    seq: int
    type: str
    time: int
    actor: str | None
    turn: int | None
    digest: str
    salt: str | None
    body: str | None
    body_digest: str | None


def verify_lines(lines: str | Iterable[str]) -> Verification:
    """Whether an exported file is whole and unchanged, from its first line to its head.

    Without a signature that finds accidents and clumsy edits: whoever makes all of it anew is
    found only by an anchor.
    """
    check = _FileCheck()
    if isinstance(lines, str):
        lines = lines.split("\n")
    for number, line in enumerate(lines, 1):
        text = line.rstrip("\r\n")
        if not text.strip():
            continue
        try:
            check.feed(text)
        except (_Bad, StoreCorrupt) as error:
            return check.failed(f"line {number}: {error}")
        if check.chain is not None and not check.chain.ok:
            return check.failed(f"line {number}: {check.chain.reason}")
    if not check.complete:
        return check.failed("the file ends without its head: it was cut off")
    return check.result(None, None)


class _FileCheck:
    def __init__(self) -> None:
        self.chain: ChainChecker | None = None
        self.complete = False
        self._uid = b""
        self._checked = 0
        self._erased = 0
        """Of the logs before the current one."""

    def feed(self, text: str) -> None:
        if self.complete:
            raise _Bad("there is something after the head")
        line = _decoded(text)
        facts = _converted(line)
        source = _source(line["log"]) if "log" in line else None
        if source is not None:
            self._begin(source)
        if self.chain is None:
            raise _Bad("the first line does not say whose log it is")
        if facts.type == HEAD:
            self._feed_head(line, facts, self.chain)
            return
        record = _record(facts)
        expected = line_of(record, source)
        if text != text_of(expected) and canonical(line) != canonical(expected):
            wrong = [key for key in expected if line.get(key) != expected[key]] or sorted(
                set(line) - set(expected)
            )
            raise _Bad(f"{wrong[0] if wrong else 'something'} is not what was exported")
        self.chain.feed(record)

    def failed(self, reason: str) -> Verification:
        """The result, where something does not fit."""
        position = None
        if self.chain is not None:
            position = self.chain.first_bad or self.chain.seq + 1
        return self.result(reason, position)

    def result(self, reason: str | None, position: int | None) -> Verification:
        """The result; with a reason, the file is bad."""
        chain = self.chain
        return Verification(
            ok=reason is None,
            checked=self._checked + (chain.checked if chain else 0),
            head=chain.digest.hex() if chain else "",
            first_bad=position,
            reason=reason,
            erased=self._erased + (chain.erased if chain else 0),
        )

    def _begin(self, source: Source) -> None:
        before = self.chain
        if before is not None:
            end = (self._uid, before.seq, before.digest)
            if end != (source.parent_uid, source.base, source.parent_digest):
                raise _Bad("the log that begins here does not stand on the one before")
            self._checked += before.checked
            self._erased += before.erased
        self._uid = source.uid
        self.chain = ChainChecker(source.uid, source.start(), source.base)

    def _feed_head(self, line: dict[str, Any], facts: _Facts, chain: ChainChecker) -> None:
        if line.get("seal") != seal_of(line):
            raise _Bad("the seal of the head does not fit")
        strange = _HEAD_FIELDS.symmetric_difference(line) - {"log"}
        if strange or line["timestamp"] != to_iso(facts.time):
            raise _Bad("this is no head that was exported")
        events = self._checked + chain.checked
        if line["events"] != events:
            raise _Bad(f"the head says {line['events']} events, and there are {events}")
        if facts.seq != chain.seq or facts.digest != chain.digest.hex():
            raise _Bad(f"the head says {facts.seq}, and the last event is {chain.seq}")
        self.complete = True


def _decoded(text: str) -> dict[str, Any]:
    try:
        import json  # slow to import, and few ever check a file

        json.loads(text, object_pairs_hook=_without_repetition)
        line = msgspec.json.decode(text)
    except (ValueError, RecursionError, msgspec.DecodeError) as error:
        raise _Bad(f"this is no line that was exported ({error})") from None
    if not isinstance(line, dict):
        raise _Bad("this is no line that was exported")
    return cast("dict[str, Any]", line)


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a field is there twice")
    return result


def _converted(line: dict[str, Any]) -> _Facts:
    try:
        return msgspec.convert(line, _Facts)
    except msgspec.ValidationError as error:
        raise _Bad(str(error)) from None


def _record(facts: _Facts) -> Record:
    if facts.actor is None or facts.turn is None:
        raise _Bad("an event has an actor and a turn")
    return Record(
        facts.seq,
        facts.type,
        facts.time,
        facts.actor,
        facts.turn,
        None if facts.body is None else facts.body.encode(errors="surrogatepass"),
        _bytes(facts.salt),
        _bytes(facts.digest) or b"",
        _bytes(facts.body_digest),
    )


def _source(log: Any) -> Source:
    try:
        found = msgspec.convert(log, _Log)
    except msgspec.ValidationError as error:
        raise _Bad(f"log: {error}") from None
    if found.tertulia != FILE_VERSION:
        raise _Bad(f"the file has version {found.tertulia}; this is known: {FILE_VERSION}")
    uid = _bytes(found.uid) or b""
    if found.parent is None:
        return Source(uid=uid)
    return Source(
        uid=uid,
        parent_uid=_bytes(found.parent.uid),
        base=found.parent.seq,
        parent_digest=_bytes(found.parent.digest),
    )


class _Parent(msgspec.Struct, forbid_unknown_fields=True):
    uid: str
    seq: int
    digest: str


class _Log(msgspec.Struct, forbid_unknown_fields=True):
    tertulia: int
    uid: str
    parent: _Parent | None


def _bytes(text: str | None) -> bytes | None:
    if text is None:
        return None
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise _Bad(f"{text[:20]!r} is no hex") from None
