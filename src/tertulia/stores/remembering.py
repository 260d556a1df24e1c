"""Memories as SQL over one connection: writing inside a transaction of the caller, and reading.

A function that refuses raises an AgentError and has written nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from tertulia.errors import HistoryErased, SessionNotFound
from tertulia.stores import rows as row
from tertulia.stores import sql, vectors, words
from tertulia.stores.base import Segment
from tertulia.stores.database import Database, Values
from tertulia.stores.memories import MemoryRow, MemoryScope

SQL = sql.queries("memory.sql")


class Owner(NamedTuple):
    """The row of a scope that has memories, or had."""

    id: int
    salt: bytes


# -- writing


def put(db: Database, scope: MemoryScope, rows: Sequence[MemoryRow]) -> None:
    for each in rows:
        _check_sources(db, each)
    keep(db, scope, rows)


def keep(db: Database, scope: MemoryScope, rows: Iterable[MemoryRow]) -> None:
    """Write memories wherever they come from."""
    owner = _owner_made(db, scope)
    for each in rows:
        _put(db, owner, each)


def _check_sources(db: Database, memory: MemoryRow) -> None:
    if memory.session is None:
        return
    if not db.execute(SQL["is_open"], (memory.session,)).fetchall():
        raise SessionNotFound("the session was deleted meanwhile; nothing was remembered of it")
    for source in memory.sources:
        if db.execute(SQL["is_erased"], source).fetchall():
            raise HistoryErased("a message was erased meanwhile; nothing was remembered: try again")


def _put(db: Database, owner: Owner, memory: MemoryRow) -> None:
    named = memory.key if memory.session is None else None
    values = (
        owner.id,
        memory.key,
        memory.content,
        memory.metadata,
        memory.created,
        memory.updated,
        memory.session,
        words.of_memory(db, owner.salt, named, memory.content),
        memory.embedder,
        memory.vector,
    )
    db.execute(SQL["put"], values)
    db.execute(SQL["drop_sources"], (owner.id, memory.key))
    for source in memory.sources:
        db.execute(SQL["add_source"], (*source, owner.id, memory.key))


def put_vectors(db: Database, scope: MemoryScope, rows: Sequence[MemoryRow]) -> int:
    owner = find_owner(db, scope)
    changed = 0
    for each in rows if owner is not None else ():
        values = {
            "owner": owner and owner.id,
            "key": each.key,
            "content": each.content,
            "embedder": each.embedder,
            "vector": each.vector,
        }
        db.execute(SQL["put_vector"], values)
        changed += db.changes()
    return changed


def forget(db: Database, scope: MemoryScope, keys: str) -> int:
    owner = find_owner(db, scope)
    if owner is None:
        return 0
    db.execute(SQL["forget"], {"owner": owner.id, "keys": keys})
    return db.changes()


def forget_session(db: Database, uid: bytes) -> int:
    """Remove what was taken from a session or from events of its log, in every scope."""
    db.execute(SQL["forget_session"], {"session": uid})
    return db.changes()


def forget_erased(db: Database, segment: Segment) -> int:
    """Remove what was taken from events of a segment that are erased now."""
    values = {"session": segment.session, "low": segment.low, "high": segment.high}
    db.execute(SQL["forget_erased"], values)
    return db.changes()


def forget_scope(db: Database, scope: MemoryScope) -> int:
    """Remove all memories of a scope."""
    owner = find_owner(db, scope)
    if owner is None:
        return 0
    db.execute(SQL["forget_owner"], (owner.id,))
    return db.changes()


def forget_user(db: Database, user: str) -> int:
    """Remove a user's memories in every app; how many."""
    forgotten = forget_some(db, user, -1)
    db.execute(SQL["drop_owners"], (user,))
    return forgotten


def forget_some(db: Database, user: str, limit: int) -> int:
    """Remove some of a user's memories; how many, fewer than `limit` when none is left."""
    db.execute(SQL["forget_user"], (user, limit))
    return db.changes()


def _owner_made(db: Database, scope: MemoryScope) -> Owner:
    db.execute(SQL["add_owner"], _place(scope))
    return Owner(*db.execute(SQL["owner"], _place(scope)).fetchall()[0])


# -- reading


def find_owner(db: Database, scope: MemoryScope) -> Owner | None:
    for found in db.execute(SQL["owner"], _place(scope)).fetchall():
        return Owner(*found)
    return None


def of_keys(db: Database, scope: MemoryScope, keys: str) -> list[MemoryRow]:
    return _read(db, "of_keys", find_owner(db, scope), {"keys": keys})


def page(db: Database, scope: MemoryScope, after: int, limit: int) -> list[MemoryRow]:
    return _read(db, "page", find_owner(db, scope), {"after": after, "limit": limit})


def with_words(db: Database, scope: MemoryScope, text: str, limit: int) -> list[MemoryRow]:
    owner = find_owner(db, scope)
    wanted = None if owner is None else words.any_of(db, owner.salt, text)
    if wanted is None:
        return []
    return _read(db, "with_words", owner, {"words": wanted, "limit": limit})


def near(
    db: Database, scope: MemoryScope, embedder: str, vector: bytes, limit: int
) -> list[MemoryRow]:
    vectors.prepare(db)
    values = {"embedder": embedder, "vector": vector, "limit": limit}
    return _read(db, "near", find_owner(db, scope), values)


def whole(db: Database, scope: MemoryScope) -> list[MemoryRow]:
    """All memories of a scope with their vectors and sources."""
    owner = find_owner(db, scope)
    if owner is None:
        return []
    found: list[MemoryRow] = []
    for *values, vector in db.execute(SQL["whole"], (owner.id,)).fetchall():
        memory = memory_row(tuple(values))
        sources = tuple(db.execute(SQL["sources"], (memory.id,)).fetchall())
        found.append(msgspec.structs.replace(memory, vector=vector, sources=sources))
    return found


def scopes_of_user(db: Database, user: str) -> list[MemoryScope]:
    found = db.execute(SQL["scopes_of_user"], (user,)).fetchall()
    return [MemoryScope(app or None, owner) for app, owner in found]


def keys_text(keys: Sequence[str]) -> str:
    """Keys as a parameter for json_each."""
    return msgspec.json.encode(list(keys)).decode()


def memory_row(values: Values) -> MemoryRow:
    """A row of `columns`."""
    number, key, content, metadata, created, updated, session, embedder = values
    return MemoryRow(
        id=number,
        key=key,
        content=content,
        metadata=metadata,
        created=created,
        updated=updated,
        session=session,
        embedder=embedder,
    )


def _read(db: Database, name: str, owner: Owner | None, values: dict[str, Any]) -> list[MemoryRow]:
    if owner is None:
        return []
    found = db.execute(SQL[name], {**values, "owner": owner.id}).fetchall()
    return [memory_row(each) for each in found]


def _place(scope: MemoryScope) -> Values:
    return (row.scope_value(scope.app), row.scope_value(scope.user))
