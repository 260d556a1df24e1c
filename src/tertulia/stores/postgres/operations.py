"""Every operation of the store but `commit`, each named once."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import msgspec

from tertulia.doors import Outcome
from tertulia.errors import OutcomeUnknown
from tertulia.events import Record
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
from tertulia.stores.engine import ERASE_AT_ONCE
from tertulia.stores.memories import MemoryRow, MemoryScope
from tertulia.stores.postgres import changing, reading, remembering
from tertulia.stores.postgres.driver import Connection
from tertulia.stores.postgres.rows import name
from tertulia.values import json_value

T = TypeVar("T")
P = ParamSpec("P")


class Operations(SessionStore):
    """Says what each operation is; a store says how to run it, and where."""

    @abstractmethod
    def _ask(
        self,
        work: Callable[Concatenate[Connection, P], Awaitable[T]],
        *args: P.args,
        **kw: P.kwargs,
    ) -> Outcome[T]:
        """Run on a connection; again, where it is not known whether it was done."""

    @abstractmethod
    def _ask_once(
        self,
        work: Callable[Concatenate[Connection, P], Awaitable[T]],
        *args: P.args,
        **kw: P.kwargs,
    ) -> Outcome[T]:
        """Run what must not be done twice: then OutcomeUnknown is raised."""

    @abstractmethod
    def _ring(self, session: int) -> None:
        """Ring the bells of a session, here and elsewhere."""

    @abstractmethod
    async def _has_vectors(self) -> bool:
        """Whether the server can compare vectors."""

    @staticmethod
    @abstractmethod
    def _wait(outcome: Outcome[T]) -> T:
        """Block this thread for what an outcome gives."""

    # -- reading

    async def find(self, app: str | None, session_id: str) -> SessionRow | None:
        return await self._ask(reading.find, app, session_id)

    async def row(self, key: int) -> SessionRow | None:
        return await self._ask(reading.session, key)

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
        page = (after, None if any_app else name(app), limit)
        return await self._ask(reading.sessions, user, due_before, page)

    async def children(self, key: int) -> list[SessionRow]:
        return await self._ask(reading.children, key)

    async def branch_at(self, key: int, position: int) -> Branch | None:
        return await self._ask(reading.branch_at, key, position)

    async def chain(self, session: int, low: int, high: int, limit: int = 64) -> list[Segment]:
        return await self._ask(reading.chain, session, low, high, limit)

    async def marks(
        self, segment: Segment, kind: MarkKind, *, below: int, limit: int = 64
    ) -> list[Mark]:
        return await self._ask(reading.marks, segment, kind, below, limit)

    async def messages(
        self, segments: Sequence[Segment], limit: int | None = None, *, newest: bool = True
    ) -> list[Record]:
        return await self._ask(reading.read, reading.MESSAGES[newest], segments, limit)

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
            return await self._ask(reading.read, reading.RECORDS[newest], segments, limit)
        wanted = None if types is None else list(types)
        how = reading.CHOSEN[newest]
        return await self._ask(reading.read, how, segments, limit, wanted, since_time)

    async def count_messages(self, segments: Sequence[Segment]) -> int:
        return await self._ask(reading.count_messages, segments)

    async def state(self, segments: Sequence[Segment], key: str) -> Record | None:
        return await self._ask(reading.state, segments, key)

    async def state_keys(self, segments: Sequence[Segment]) -> list[tuple[str, int]]:
        return await self._ask(reading.state_keys, segments)

    async def shared(
        self, scope: SharedScope, app: str | None, user: str | None, key: str
    ) -> SharedValue | None:
        return await self._ask(reading.shared, scope, app, user, key)

    async def shared_keys(
        self, scope: SharedScope, app: str | None, user: str | None
    ) -> list[tuple[str, SharedValue]]:
        return await self._ask(reading.shared_keys, scope, app, user)

    # -- inbox, requests, entities

    async def put_input(self, entry: Input) -> Input:
        written = await self._ask(changing.put_input, entry, os.urandom(16))
        self._ring(entry.session)
        return written

    async def inputs(self, session: int) -> list[Input]:
        return await self._ask(reading.inputs, session)

    async def drop_inputs(self, ids: Sequence[int]) -> int:
        return await self._ask(changing.drop_inputs, ids)

    async def request(self, session: int, key: str) -> Request | None:
        return await self._ask(reading.request, session, key)

    async def drop_requests(self, before: int) -> int:
        dropped, step = 0, ERASE_AT_ONCE
        while step >= ERASE_AT_ONCE:
            step = await self._ask(changing.drop_requests, before)
            dropped += step
        return dropped

    async def entity(self, kind: str, key: str) -> SharedValue | None:
        return await self._ask(reading.entity, kind, key)

    async def put_entity(self, kind: str, key: str, value: bytes | None, expect: int) -> int:
        return await self._ask_once(changing.put_entity, kind, key, value, expect)

    # -- erasing

    async def erase(self, segments: Sequence[Segment], types: Sequence[str] | None = None) -> int:
        erased = 0
        for segment in segments:
            count = ERASE_AT_ONCE
            while count == ERASE_AT_ONCE:
                count = await self._ask(changing.erase, segment, types)
                erased += count
            self._ring(segment.session)
        return erased

    async def delete_session(self, row: SessionRow, receipt: Receipt | None, *, stub: bool) -> None:
        try:
            await self._ask_once(changing.delete_session, row, receipt, stub)
        except OutcomeUnknown:
            left = await self.row(row.key)
            if left is not None and left.status != "deleted":
                raise
        self._ring(row.key)
        while not await self._ask(changing.remove_events, row.key):
            continue

    async def erase_user(self, user: str, receipt: Receipt) -> int:
        erased, count = 0, ERASE_AT_ONCE
        while count == ERASE_AT_ONCE:
            count = await self._ask(remembering.forget_some, user, ERASE_AT_ONCE)
            erased += count
        return erased + await self._ask_once(changing.erase_user, user, receipt)

    async def receipts(self) -> list[Receipt]:
        return await self._ask(reading.receipts)

    async def add_receipt(self, receipt: Receipt) -> None:
        await self._ask_once(changing.add_receipt, receipt)

    # -- memories

    async def put_memories(self, scope: MemoryScope, rows: Sequence[MemoryRow]) -> None:
        await self._ask(remembering.put, scope, rows)

    async def put_vectors(self, scope: MemoryScope, rows: Sequence[MemoryRow]) -> int:
        return await self._ask(remembering.put_vectors, scope, rows)

    async def memories(self, scope: MemoryScope, keys: Sequence[str]) -> list[MemoryRow]:
        return await self._ask(remembering.of_keys, scope, keys)

    async def memory_page(self, scope: MemoryScope, after: int, limit: int) -> list[MemoryRow]:
        return await self._ask(remembering.page, scope, after, limit)

    async def memories_with(self, scope: MemoryScope, text: str, limit: int) -> list[MemoryRow]:
        return await self._ask(remembering.with_words, scope, text, limit)

    async def memories_near(
        self, scope: MemoryScope, embedder: str, vector: bytes, limit: int
    ) -> list[MemoryRow]:
        has_vectors = await self._has_vectors()
        near = remembering.near if has_vectors else remembering.near_without_extension
        return await self._ask(near, scope, embedder, vector, limit)

    async def forget_memories(self, scope: MemoryScope, keys: Sequence[str]) -> int:
        return await self._ask(remembering.forget, scope, keys)

    async def memory_scopes(self, user: str) -> list[MemoryScope]:
        return await self._ask(remembering.scopes_of_user, user)

    # -- documents

    def save(self, session_id: str, data: dict[str, Any]) -> None:
        text = msgspec.json.encode(json_value(data, "data")).decode()
        self._wait(self._ask(changing.save_document, session_id, text))

    def load(self, session_id: str) -> dict[str, Any] | None:
        text = self._wait(self._ask(reading.load_document, session_id))
        return None if text is None else cast("dict[str, Any]", msgspec.json.decode(text))

    def delete(self, session_id: str) -> bool:
        return self._wait(self._ask_once(changing.delete_document, session_id))

    def list_sessions(self) -> list[str]:
        return self._wait(self._ask(reading.list_documents))
