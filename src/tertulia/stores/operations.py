"""What stores on one SQL semantics share: every operation but `commit`, and documents."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import msgspec

from tertulia.events import Record
from tertulia.stores import engine, queries, remembering
from tertulia.stores import rows as row
from tertulia.stores.aside import aside
from tertulia.stores.base import (
    Branch,
    Input,
    Mark,
    MarkKind,
    Receipt,
    Request,
    Segment,
    SessionRow,
    SessionStore,
    SharedScope,
    SharedValue,
)
from tertulia.stores.database import Database
from tertulia.stores.memories import MemoryRow, MemoryScope
from tertulia.values import json_value

T = TypeVar("T")
P = ParamSpec("P")


class EngineStore(SessionStore):
    """Names each operation once; a store says how to read, and how to write a transaction."""

    @abstractmethod
    def _read(
        self, query: Callable[Concatenate[Database, P], T], *args: P.args, **kw: P.kwargs
    ) -> T:
        """Run a query on a connection; never suspends."""

    @abstractmethod
    def _write(
        self,
        touched: int,
        run: Callable[Concatenate[Database, P], T],
        *args: P.args,
        **kw: P.kwargs,
    ) -> Awaitable[T]:
        """Run in a transaction, in the order of the calls; rings the bells of session `touched`."""

    @abstractmethod
    def _write_now(
        self, run: Callable[Concatenate[Database, P], T], *args: P.args, **kw: P.kwargs
    ) -> T:
        """The same, and block this thread until it is durable."""

    async def _erased(self) -> None:
        """Make sure that nothing of what was erased is left in a journal."""

    async def find(self, app: str | None, session_id: str) -> SessionRow | None:
        return self._read(queries.find, app, session_id)

    async def row(self, key: int) -> SessionRow | None:
        return self._read(queries.session, key)

    async def rows(
        self,
        *,
        app: str | None = None,
        user: str | None = None,
        after: int = 0,
        limit: int = 100,
        due_before: int | None = None,
        any_app: bool = True,
    ) -> list[SessionRow]:
        values = {"app": app, "any_app": any_app, "after": after, "limit": limit}
        return self._read(queries.sessions, user, due_before, values)

    async def children(self, key: int) -> list[SessionRow]:
        return self._read(queries.children, key)

    async def branch_at(self, key: int, position: int) -> Branch | None:
        return self._read(queries.branch_at, key, position)

    async def chain(self, session: int, low: int, high: int, limit: int = 64) -> list[Segment]:
        return self._read(queries.chain, session, low, high, limit)

    async def marks(
        self, segment: Segment, kind: MarkKind, *, below: int, limit: int = 64
    ) -> list[Mark]:
        return self._read(queries.marks, segment, kind, below, limit)

    async def messages(
        self, segments: Sequence[Segment], limit: int | None = None, *, newest: bool = True
    ) -> list[Record]:
        return self._read(queries.read, queries.MESSAGES[newest], segments, limit)

    async def records(
        self,
        segments: Sequence[Segment],
        limit: int | None = None,
        *,
        newest: bool = False,
        types: Sequence[str] | None = None,
        since_time: int | None = None,
    ) -> list[Record]:
        if types is None and since_time is None:
            return self._read(queries.read, queries.RECORDS[newest], segments, limit)
        chosen = (row.types_text(types), since_time)
        return self._read(queries.read, queries.CHOSEN[newest], segments, limit, chosen)

    async def count_messages(self, segments: Sequence[Segment]) -> int:
        return self._read(queries.count_messages, segments)

    async def state(self, segments: Sequence[Segment], key: str) -> Record | None:
        return self._read(queries.state, segments, key)

    async def state_keys(self, segments: Sequence[Segment]) -> list[tuple[str, int]]:
        return self._read(queries.state_keys, segments)

    async def shared(
        self, scope: SharedScope, app: str | None, user: str | None, key: str
    ) -> SharedValue | None:
        return self._read(queries.shared, scope, app, user, key)

    async def shared_keys(
        self, scope: SharedScope, app: str | None, user: str | None
    ) -> list[tuple[str, SharedValue]]:
        return self._read(queries.shared_keys, scope, app, user)

    async def put_input(self, entry: Input) -> Input:
        return await self._write(entry.session, engine.put_input, entry)

    async def inputs(self, session: int) -> list[Input]:
        return self._read(queries.inputs, session)

    async def drop_inputs(self, ids: Sequence[int]) -> int:
        return await self._write(0, engine.drop_inputs, ids)

    async def request(self, session: int, key: str) -> Request | None:
        return self._read(queries.request, session, key)

    async def drop_requests(self, before: int) -> int:
        dropped, step = 0, engine.ERASE_AT_ONCE
        while step >= engine.ERASE_AT_ONCE:
            step = await self._write(0, engine.drop_requests, before)
            dropped += step
        if dropped:
            await self._erased()
        return dropped

    async def entity(self, kind: str, key: str) -> SharedValue | None:
        return self._read(queries.entity, kind, key)

    async def put_entity(self, kind: str, key: str, value: bytes | None, expect: int) -> int:
        return await self._write(0, engine.put_entity, kind, key, value, expect)

    async def erase(self, segments: Sequence[Segment], types: Sequence[str] | None = None) -> int:
        erased, wanted = 0, row.types_text(types)
        for segment in segments:
            count = engine.ERASE_AT_ONCE
            while count == engine.ERASE_AT_ONCE:
                count = await self._write(segment.session, engine.erase, segment, wanted)
                erased += count
        await self._erased()
        return erased

    async def delete_session(self, row: SessionRow, receipt: Receipt | None, *, stub: bool) -> None:
        await self._write(row.key, engine.delete_session, row, receipt, stub)
        while not await self._write(0, engine.remove_events, row.key):
            pass
        await self._erased()

    async def erase_user(self, user: str, receipt: Receipt) -> int:
        erased, count = 0, engine.ERASE_AT_ONCE
        while count == engine.ERASE_AT_ONCE:
            count = await self._write(0, remembering.forget_some, user, engine.ERASE_AT_ONCE)
            erased += count
        erased += await self._write(0, engine.erase_user, user, receipt)
        await self._erased()
        return erased

    async def receipts(self) -> list[Receipt]:
        return self._read(queries.receipts)

    async def add_receipt(self, receipt: Receipt) -> None:
        await self._write(0, engine.add_receipt, receipt)

    # -- memories

    async def put_memories(self, scope: MemoryScope, rows: Sequence[MemoryRow]) -> None:
        await self._write(0, remembering.put, scope, rows)

    async def put_vectors(self, scope: MemoryScope, rows: Sequence[MemoryRow]) -> int:
        return await self._write(0, remembering.put_vectors, scope, rows)

    async def memories(self, scope: MemoryScope, keys: Sequence[str]) -> list[MemoryRow]:
        return self._read(remembering.of_keys, scope, remembering.keys_text(keys))

    async def memory_page(self, scope: MemoryScope, after: int, limit: int) -> list[MemoryRow]:
        return self._read(remembering.page, scope, after, limit)

    async def memories_with(self, scope: MemoryScope, text: str, limit: int) -> list[MemoryRow]:
        return await aside(lambda: self._read(remembering.with_words, scope, text, limit))

    async def memories_near(
        self, scope: MemoryScope, embedder: str, vector: bytes, limit: int
    ) -> list[MemoryRow]:
        return await aside(lambda: self._read(remembering.near, scope, embedder, vector, limit))

    async def forget_memories(self, scope: MemoryScope, keys: Sequence[str]) -> int:
        forgotten = await self._write(0, remembering.forget, scope, remembering.keys_text(keys))
        if forgotten:
            await self._erased()
        return forgotten

    async def memory_scopes(self, user: str) -> list[MemoryScope]:
        return self._read(remembering.scopes_of_user, user)

    # -- documents

    def save(self, session_id: str, data: dict[str, Any]) -> None:
        text = msgspec.json.encode(json_value(data, "data")).decode()
        self._write_now(engine.save_document, session_id, text)

    def load(self, session_id: str) -> dict[str, Any] | None:
        text = self._read(queries.load_document, session_id)
        return None if text is None else cast("dict[str, Any]", msgspec.json.decode(text))

    def delete(self, session_id: str) -> bool:
        return self._write_now(engine.delete_document, session_id)

    def list_sessions(self) -> list[str]:
        return self._read(queries.list_documents)
