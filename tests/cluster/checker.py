"""Reads all logs of a database, and says what is wrong with them.

It reads the rows themselves, beside what `Session.verify` says of them, so that it does not
believe the code that wrote them.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from tertulia import Runtime
from tertulia.errors import AgentError
from tertulia.stores.postgres import driver
from tertulia.stores.postgres.address import parse

ENDS = frozenset(("turn.completed", "turn.failed", "turn.interrupted", "turn.abandoned"))
LEFT = frozenset(("turn.failed", "turn.abandoned"))
"""How turns end that may be asked for again."""
EVENTS = """
SELECT s.id AS session, coalesce(s.app, '') AS app, s.base, s.seq AS head, s.open_turn,
    e.seq, e.type, e.turn, e.digest, e.body
FROM tertulia.sessions AS s LEFT JOIN tertulia.events AS e ON e.session = s.key
WHERE s.status <> 'deleted' ORDER BY s.key, e.seq
"""


class Acknowledged(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody was told is durable: an event, and what it is part of."""

    session: str
    seq: int
    app: str | None = None
    digest: str | None = None
    """Of the event, in hexadecimal digits."""
    text: str | None = None
    """The text of the message that it adds, which nobody said twice."""
    key: str | None = None
    """The idempotency key of its turn."""
    turn: int | None = None


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """An event as it lies in the database."""

    seq: int
    type: str
    turn: int
    digest: bytes
    body: bytes | None

    @property
    def text(self) -> str | None:
        """The text of the message that it adds, if it does and it was not erased."""
        if self.type != "message.added" or self.body is None:
            return None
        content = json.loads(self.body).get("content")
        return content if isinstance(content, str) else None

    @property
    def key(self) -> str | None:
        """The idempotency key of the turn that it starts, if it does and has one."""
        if self.type != "turn.started" or self.body is None:
            return None
        return json.loads(self.body).get("key")


class Log(msgspec.Struct, kw_only=True):
    """All rows of one session, and what its own row says of them."""

    app: str | None
    id: str
    base: int
    head: int
    open_turn: int | None
    rows: list[Row] = []


async def check(address: str, acknowledged: Iterable[Acknowledged] = ()) -> None:
    """Raises AssertionError with all that is wrong."""
    faults = await faults_in(address, acknowledged)
    assert not faults, "\n".join(faults)


async def faults_in(address: str, acknowledged: Iterable[Acknowledged] = ()) -> list[str]:
    """What is wrong with the logs of a database, and what of the acknowledged is not there."""
    by_session: dict[tuple[str | None, str], list[Acknowledged]] = defaultdict(list)
    for each in acknowledged:
        by_session[each.app, each.session].append(each)
    logs = await _read(address)
    missing = by_session.keys() - {(log.app, log.id) for log in logs}
    found = [f"{name}: the session is not there" for _, name in missing]
    for log in logs:
        found += [f"{log.id}: {fault}" for fault in faults_of(log, by_session[log.app, log.id])]
    return found + await _unverified(address)


def faults_of(log: Log, acknowledged: Sequence[Acknowledged]) -> Iterator[str]:
    """What is wrong with one log."""
    yield from _order(log)
    yield from _turns(log)
    yield from _twice(log)
    yield from _lost(log, acknowledged)


def _order(log: Log) -> Iterator[str]:
    """A position for each event, one after the other, to the head."""
    expected = log.base + 1
    for row in log.rows:
        if row.seq != expected:
            yield f"event {expected} should come, and {row.seq} does"
        expected = row.seq + 1
    if expected != log.head + 1:
        yield f"its head is {log.head}, and its last event {expected - 1}"


def _turns(log: Log) -> Iterator[str]:
    """A turn begins once, ends once, and nothing of another one comes between."""
    running: int | None = None
    seen: set[int] = set()
    for row in log.rows:
        if row.type == "turn.started":
            if running is not None:
                yield f"turn {row.seq} begins inside of turn {running}"
            if row.turn != row.seq or row.turn in seen:
                yield f"turn {row.turn} begins at {row.seq}"
            running = row.turn
            seen.add(row.turn)
        elif row.type in ENDS:
            if row.turn != running:
                yield f"turn {row.turn} ends at {row.seq}, where {running} runs"
            running = None
        elif row.turn != running and (running is not None or row.turn in seen):
            yield f"event {row.seq} is of turn {row.turn}, where {running} runs"
    if running != log.open_turn:
        yield f"its open turn is {log.open_turn}, and in its log {running}"


def _twice(log: Log) -> Iterator[str]:
    """No request was carried out twice."""
    for key, turns in _answered(log).items():
        if len(turns) > 1:
            yield f"the request {key!r} was carried out in turns {turns}"


def _answered(log: Log) -> dict[str, list[int]]:
    """The turns of each idempotency key that ended with an answer."""
    done = {row.turn for row in log.rows if row.type == "turn.completed"}
    turns: dict[str, list[int]] = defaultdict(list)
    for row in log.rows:
        if row.key is not None and row.turn in done:
            turns[row.key].append(row.turn)
    return turns


def _lost(log: Log, acknowledged: Sequence[Acknowledged]) -> Iterator[str]:
    """What was acknowledged and is not there, or is something else now."""
    there = {row.seq: row for row in log.rows}
    answered = _answered(log)
    left = {row.turn for row in log.rows if row.type in LEFT}
    said = Counter(row.text for row in log.rows if row.turn not in left)
    for each in acknowledged:
        row = there.get(each.seq)
        if row is None:
            yield f"event {each.seq} was acknowledged, and is not there"
        elif each.digest is not None and row.digest.hex() != each.digest:
            yield f"event {each.seq} is another one than was acknowledged"
        elif each.text is not None and (row.text != each.text or said[each.text] != 1):
            yield f"{each.text!r} is there {said[each.text]} times, and {row.text!r} at {each.seq}"
        elif each.turn is not None and row.turn != each.turn:
            yield f"event {each.seq} was acknowledged as of turn {each.turn}, not {row.turn}"
        if each.key is not None and answered.get(each.key) != [each.turn]:
            yield f"the request {each.key!r} was answered in turn {each.turn}, which is not so"


async def _read(address: str) -> list[Log]:
    connection = await driver.connect(parse(address).direct)
    try:
        rows = await connection.fetch(EVENTS)
    finally:
        await connection.close()
    logs: dict[tuple[str | None, str], Log] = {}
    for session, app, base, head, open_turn, seq, kind, turn, digest, body in rows:
        place = (app or None, session)
        if place not in logs:
            logs[place] = Log(app=place[0], id=session, base=base, head=head, open_turn=open_turn)
        if seq is not None:
            logs[place].rows.append(Row(seq=seq, type=kind, turn=turn, digest=digest, body=body))
    return list(logs.values())


async def _unverified(address: str) -> list[str]:
    """What `verify` says of each session."""
    found: list[str] = []
    async with Runtime(address) as runtime:
        for info in await runtime.sessions(limit=None):
            session = runtime.session(info.id, app_name=info.app_name)
            try:
                verified = await session.verify()
            except AgentError as error:
                found.append(f"{info.id}: it cannot be read: {error!r}")
            else:
                if not verified:
                    at, why = verified.first_bad, verified.reason
                    found.append(f"{info.id}: does not verify at {at}: {why}")
    return found
