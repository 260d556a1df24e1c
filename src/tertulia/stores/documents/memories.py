"""Memories on a store of documents: one document for each scope, saved whole when it changes."""

from __future__ import annotations

from abc import abstractmethod
from base64 import b64decode, b64encode
from collections import OrderedDict
from collections.abc import Callable, Sequence
from os import urandom
from typing import Any, Concatenate, ParamSpec, TypeVar

import msgspec

from tertulia.doors import Outcome
from tertulia.errors import StaleWriter, StoreCorrupt, StoreUnavailable
from tertulia.stores import queries, remembering
from tertulia.stores.base import Segment, SessionRow
from tertulia.stores.database import Database
from tertulia.stores.documents import names
from tertulia.stores.documents.saved import OURS, Stamp, stamp
from tertulia.stores.documents.shelf import Document, Shelf
from tertulia.stores.memories import MemoryRow, MemoryScope
from tertulia.stores.memory import MemoryStore

T = TypeVar("T")
P = ParamSpec("P")
ATTEMPTS = 5
"""How often a change is made anew when another process saved the document in between."""


class DocumentMemories(MemoryStore):
    """What a store of documents does with memories: looks before reading, saves when writing.

    The scopes that were used last are in memory too. All of it runs on the thread that calls the
    documents.
    """

    _shelf: Shelf

    def __init__(self, keep: int) -> None:
        super().__init__()
        self._keep = keep
        self._remembered: OrderedDict[MemoryScope, Stamp] = OrderedDict()

    @abstractmethod
    def _submit(self, work: Callable[P, T], *args: P.args, **kw: P.kwargs) -> Outcome[T]:
        """Run on the thread that calls the documents."""

    async def put_memories(self, scope: MemoryScope, rows: Sequence[MemoryRow]) -> None:
        await self._submit(self._remember, scope, remembering.put, scope, rows)

    async def put_vectors(self, scope: MemoryScope, rows: Sequence[MemoryRow]) -> int:
        return await self._submit(self._remember, scope, remembering.put_vectors, scope, rows)

    async def memories(self, scope: MemoryScope, keys: Sequence[str]) -> list[MemoryRow]:
        wanted = remembering.keys_text(keys)
        return await self._submit(self._recall, scope, remembering.of_keys, scope, wanted)

    async def memory_page(self, scope: MemoryScope, after: int, limit: int) -> list[MemoryRow]:
        return await self._submit(self._recall, scope, remembering.page, scope, after, limit)

    async def memories_with(self, scope: MemoryScope, text: str, limit: int) -> list[MemoryRow]:
        return await self._submit(self._recall, scope, remembering.with_words, scope, text, limit)

    async def memories_near(
        self, scope: MemoryScope, embedder: str, vector: bytes, limit: int
    ) -> list[MemoryRow]:
        return await self._submit(
            self._recall, scope, remembering.near, scope, embedder, vector, limit
        )

    async def forget_memories(self, scope: MemoryScope, keys: Sequence[str]) -> int:
        wanted = remembering.keys_text(keys)
        return await self._submit(self._forget, scope, remembering.forget, scope, wanted)

    async def memory_scopes(self, user: str) -> list[MemoryScope]:
        return [scope for scope in await self._submit(self._memory_scopes) if scope.user == user]

    # -- on the thread of the documents

    def _memory_scopes(self) -> list[MemoryScope]:
        found = (names.scope_of_memory(name) for name in self._shelf.all_names())
        return [MemoryScope(*scope) for scope in found if scope is not None]

    def _recall(
        self,
        scope: MemoryScope,
        query: Callable[Concatenate[Database, P], T],
        *args: P.args,
        **kw: P.kwargs,
    ) -> T:
        self._bring_memories(scope)
        return self._read(query, *args, **kw)

    def _bring_memories(self, scope: MemoryScope) -> Stamp:
        """Bring the memories of a scope to what their document says."""
        name = names.of_memory(scope.app, scope.user)
        data = self._shelf.load(name)
        now = stamp(data)
        if self._remembered.get(scope) != now:
            self._transact(_replace, scope, [] if data is None else _parse(data, name))
        self._remembered[scope] = now
        self._remembered.move_to_end(scope)
        while len(self._remembered) > self._keep:
            self._transact(remembering.forget_scope, self._remembered.popitem(last=False)[0])
        return now

    def _remember(
        self,
        scope: MemoryScope,
        run: Callable[Concatenate[Database, P], T],
        *args: P.args,
        **kw: P.kwargs,
    ) -> T:
        """Change the memories of a scope: save the document, and then do it in memory."""
        for _ in range(ATTEMPTS):
            before = self._bring_memories(scope)
            rows = self._transact(_changed, scope, run, *args, **kw)
            data = _document(rows, before.revision + 1, self._worker)
            try:
                made = self._shelf.save(names.of_memory(scope.app, scope.user), data, before)
            except StaleWriter:
                continue
            result = self._transact(run, *args, **kw)
            self._remembered[scope] = made
            return result
        raise StoreUnavailable(
            f"other processes changed the same memories {ATTEMPTS} times in between; nothing was "
            "written: try again"
        )

    def _forget(
        self,
        scope: MemoryScope,
        run: Callable[Concatenate[Database, P], int],
        *args: P.args,
        **kw: P.kwargs,
    ) -> int:
        """The same, for what may find nothing to remove, and then saves nothing."""
        before = len(self._recall(scope, remembering.whole, scope))
        if len(self._transact(_changed, scope, run, *args, **kw)) == before:
            return 0
        return self._remember(scope, run, *args, **kw)

    def _forget_session(self, row: SessionRow) -> None:
        """Forget what was taken from a session that is to be deleted."""
        for scope in self._scopes_near(row):
            self._forget(scope, remembering.forget_session, row.uid)

    def _forget_erased(self, segment: Segment) -> None:
        """Forget what was taken from events whose bodies were erased in memory."""
        row = self._read(queries.session, segment.session)
        for scope in [] if row is None else self._scopes_near(row):
            self._remembered.pop(scope, None)  # its document still has what memory has not
            self._forget(scope, remembering.forget_erased, segment)

    def _forget_user(self, user: str) -> int:
        """Remove the documents of a user; how many memories were in them."""
        forgotten = 0
        for scope in self._memory_scopes():
            if scope.user == user:
                forgotten += len(self._recall(scope, remembering.whole, scope))
                self._shelf.delete(names.of_memory(scope.app, scope.user))
                self._remembered.pop(scope, None)
        self._transact(remembering.forget_user, user)
        return forgotten

    def _scopes_near(self, row: SessionRow) -> list[MemoryScope]:
        """The scopes that may have something of a session: its owner's and its app's."""
        return [
            scope
            for scope in self._memory_scopes()
            if scope.app == row.app and (row.user is None or scope.user in (None, row.user))
        ]


class _Saved(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One memory in a document."""

    key: str
    content: str
    metadata: str
    created: int
    updated: int
    session: str | None = None
    sources: list[tuple[str, int]] = []
    embedder: str | None = None
    vector: str | None = None


def _replace(db: Database, scope: MemoryScope, rows: list[MemoryRow]) -> None:
    remembering.forget_scope(db, scope)
    remembering.keep(db, scope, rows)


def _changed(
    db: Database,
    scope: MemoryScope,
    run: Callable[Concatenate[Database, P], T],
    *args: P.args,
    **kw: P.kwargs,
) -> list[MemoryRow]:
    """What a change would leave of a scope, with nothing changed yet."""
    db.execute("SAVEPOINT changed")
    try:
        run(db, *args, **kw)
        return remembering.whole(db, scope)
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK TO changed")
            db.execute("RELEASE changed")


def _document(rows: list[MemoryRow], revision: int, worker: bytes) -> Document:
    return {
        "revision": revision,
        "head": {"digest": urandom(16).hex()},
        "memories": [msgspec.to_builtins(_saved(each)) for each in rows],
        OURS: {"worker": worker.hex()},
    }


def _saved(memory: MemoryRow) -> _Saved:
    return _Saved(
        key=memory.key,
        content=memory.content,
        metadata=memory.metadata,
        created=memory.created,
        updated=memory.updated,
        session=None if memory.session is None else memory.session.hex(),
        sources=[(uid.hex(), seq) for uid, seq in memory.sources],
        embedder=memory.embedder,
        vector=None if memory.vector is None else b64encode(memory.vector).decode(),
    )


def _parse(data: Document, name: str) -> list[MemoryRow]:
    try:
        found = msgspec.convert(data.get("memories"), list[_Saved])
        return [_row(each) for each in found]
    except ValueError as error:
        raise StoreCorrupt(
            f"document {name!r} is not what was saved: {error}; restore it"
        ) from error


def _row(saved: _Saved) -> MemoryRow:
    fields: dict[str, Any] = msgspec.structs.asdict(saved)
    fields["session"] = None if saved.session is None else bytes.fromhex(saved.session)
    fields["sources"] = tuple((bytes.fromhex(uid), seq) for uid, seq in saved.sources)
    fields["vector"] = None if saved.vector is None else b64decode(saved.vector, validate=True)
    return MemoryRow(**fields)
