"""Rows, records and changes as short as tests of stores want them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import Any

from msgspec.structs import replace

from tertulia.errors import AgentError
from tertulia.events import MESSAGE_ADDED, Record
from tertulia.stores.base import Branch, Change, LogStore, Segment, SessionRow

WORKER = b"w" * 16


def same(actual: Any, expected: Any) -> None:
    """Raises AssertionError."""
    if actual != expected:
        raise AssertionError(f"{actual!r} is not {expected!r}")


async def refused(kind: type[AgentError], attempt: Any) -> None:
    """Await what must be refused. Raises AssertionError when it is not."""
    try:
        await attempt
    except kind:
        return
    raise AssertionError(f"{kind.__name__} was not raised")


def record(seq: int, kind: str = MESSAGE_ADDED, text: str = "hello", time: int = 0) -> Record:
    """A record as good as a real one, but for the link of its digest."""
    body = f'{{"text":"{text} {seq}"}}'.encode()
    salt = sha256(f"salt {seq}".encode()).digest()[:16]
    digest = sha256(f"{seq} {kind} {text}".encode()).digest()
    return Record(seq, kind, time or seq * 10, "user", 0, body, salt, digest)


def unborn(name: str, **fields: Any) -> SessionRow:
    """The row of a session that is not created yet."""
    uid = sha256(f"uid {name} {fields.get('app')}".encode()).digest()[:16]
    values: dict[str, Any] = {"uid": uid, "app": None, "user": None, "seq": 0, "digest": bytes(32)}
    return SessionRow(key=0, id=name, created=1, active=1, **(values | fields))


def birth(name: str, **fields: Any) -> Change:
    """The change that creates a session with one branch and no event."""
    row = unborn(name, **fields)
    branch = Branch(session=0, low=row.base)
    return Change(before=row, after=row, create=True, branch=branch)


def append(row: SessionRow, *records: Record, **fields: Any) -> Change:
    """The change that adds records to a session; fields of the change, or `after` of its row."""
    after = fields.pop("after", {})
    if records:
        after = {"seq": records[-1].seq, "digest": records[-1].digest, **after}
    return Change(before=row, after=replace(row, **after), records=records, **fields)


def whole(row: SessionRow) -> list[Segment]:
    return [Segment(row.key, row.base, row.seq)]


def seqs(records: list[Record]) -> list[int]:
    return [each.seq for each in records]


class StoreMaker(ABC):
    """How the tests of a store come by one."""

    @abstractmethod
    def make(self) -> LogStore:
        """A new, empty store."""

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[LogStore]:
        store = self.make()
        try:
            yield store
        finally:
            await store.close()

    async def grown(self, store: LogStore, name: str, count: int, **fields: Any) -> SessionRow:
        """A session with so many messages."""
        row = await store.commit(birth(name, **fields))
        if not count:
            return row
        return await store.commit(append(row, *[record(seq) for seq in range(1, count + 1)]))
