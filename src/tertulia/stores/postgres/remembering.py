"""Memories as SQL over one connection. A function that refuses has written nothing."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Sequence
from os import urandom
from typing import NamedTuple

from tertulia.errors import HistoryErased, SessionNotFound
from tertulia.stores import remembering, words
from tertulia.stores.base import Segment
from tertulia.stores.database import Database
from tertulia.stores.database import connect as sqlite
from tertulia.stores.memories import MemoryRow, MemoryScope
from tertulia.stores.postgres import sql
from tertulia.stores.postgres.driver import Connection
from tertulia.stores.postgres.rows import name
from tertulia.stores.postgres.writing import affected
from tertulia.stores.vectors import cosine_distance, packed

SQL = sql.queries("memory.sql")
SALT_BYTES = 16
WORD_PLACES = 16_383
"""The last position of a word that PostgreSQL tells from those after it."""


class _Tokenizer(threading.local):
    """SQLite's, in memory: so both stores find the same words."""

    db: Database | None = None


_tokenizer = _Tokenizer()


class Owner(NamedTuple):
    """The row of a scope that has memories, or had."""

    id: int
    salt: bytes


def _words() -> Database:
    if _tokenizer.db is None:
        _tokenizer.db = sqlite(":memory:")
    return _tokenizer.db


# -- writing


async def put(db: Connection, scope: MemoryScope, rows: Sequence[MemoryRow]) -> None:
    async with db.transaction():
        for each in rows:
            await _check_sources(db, each)
        await keep(db, scope, rows)


async def keep(db: Connection, scope: MemoryScope, rows: Sequence[MemoryRow]) -> None:
    """Write memories wherever they come from; the connection is in a transaction of the caller."""
    await db.execute(SQL["add_owner"], *_place(scope), urandom(SALT_BYTES))
    owner = await find_owner(db, scope)
    for each in rows if owner is not None else ():
        await _put(db, owner or Owner(0, b""), each)


async def _check_sources(db: Connection, memory: MemoryRow) -> None:
    if memory.session is None:
        return
    if not await db.fetch(SQL["is_open"], memory.session):
        raise SessionNotFound("the session was deleted meanwhile; nothing was remembered of it")
    found = await db.fetch(SQL["are_erased"], *_sources(memory))
    if any(erased for (erased,) in found):
        raise HistoryErased("a message was erased meanwhile; nothing was remembered: try again")


async def _put(db: Connection, owner: Owner, memory: MemoryRow) -> None:
    named = memory.key if memory.session is None else None
    hashed = words.of_memory(_words(), owner.salt, named, memory.content)
    values = (
        owner.id,
        memory.key,
        memory.content,
        memory.metadata,
        memory.created,
        memory.updated,
        memory.session,
        _positions(hashed.split()),
        memory.embedder,
        None if memory.vector is None else _numbers(memory.vector),
    )
    [(number,)] = await db.fetch(SQL["put"], *values)
    await db.execute(SQL["drop_sources"], number)
    if memory.sources:
        await db.execute(SQL["add_sources"], *_sources(memory), number)


def _sources(memory: MemoryRow) -> tuple[list[bytes], list[int]]:
    return [each[0] for each in memory.sources], [each[1] for each in memory.sources]


def _positions(hashed: Sequence[str]) -> str:
    """Words as the text of a tsvector: each with its places, which count in the ranking."""
    return " ".join(f"{word}:{min(n, WORD_PLACES)}" for n, word in enumerate(hashed, start=1))


def _numbers(vector: bytes) -> list[float]:
    return array("f", vector).tolist()


async def put_vectors(db: Connection, scope: MemoryScope, rows: Sequence[MemoryRow]) -> int:
    owner = await find_owner(db, scope)
    changed = 0
    if owner is not None:
        async with db.transaction():
            for each in rows:
                vector = None if each.vector is None else _numbers(each.vector)
                values = (owner.id, each.key, each.content, each.embedder, vector)
                changed += affected(await db.execute(SQL["put_vector"], *values))
    return changed


async def forget(db: Connection, scope: MemoryScope, keys: Sequence[str]) -> int:
    owner = await find_owner(db, scope)
    if owner is None:
        return 0
    return affected(await db.execute(SQL["forget"], owner.id, list(keys)))


async def forget_session(db: Connection, uid: bytes) -> None:
    """Remove what was taken from a session or from events of its log, in every scope."""
    await db.execute(SQL["forget_session"], uid)


async def forget_erased(db: Connection, segment: Segment) -> None:
    """Remove what was taken from events of a segment that are erased now."""
    await db.execute(SQL["forget_erased"], segment.session, segment.low, segment.high)


async def forget_user(db: Connection, user: str) -> int:
    """Remove a user's memories in every app; how many."""
    forgotten = await forget_some(db, user, None)
    await db.execute(SQL["drop_owners"], user)
    return forgotten


async def forget_some(db: Connection, user: str, limit: int | None) -> int:
    """Remove some of a user's memories; how many, fewer than `limit` when none is left."""
    return affected(await db.execute(SQL["forget_user"], user, limit))


# -- reading


async def find_owner(db: Connection, scope: MemoryScope) -> Owner | None:
    for found in await db.fetch(SQL["owner"], *_place(scope)):
        return Owner(*found)
    return None


async def of_keys(db: Connection, scope: MemoryScope, keys: Sequence[str]) -> list[MemoryRow]:
    owner = await find_owner(db, scope)
    found = [] if owner is None else await db.fetch(SQL["of_keys"], owner.id, list(keys))
    return [remembering.memory_row(tuple(each)) for each in found]


async def page(db: Connection, scope: MemoryScope, after: int, limit: int) -> list[MemoryRow]:
    owner = await find_owner(db, scope)
    found = [] if owner is None else await db.fetch(SQL["page"], owner.id, after, limit)
    return [remembering.memory_row(tuple(each)) for each in found]


async def with_words(db: Connection, scope: MemoryScope, text: str, limit: int) -> list[MemoryRow]:
    owner = await find_owner(db, scope)
    if owner is None:
        return []
    wanted = list(dict.fromkeys(words.words(_words(), owner.salt, text)))[: words.MAX_QUERY_WORDS]
    if not wanted:
        return []
    found = await db.fetch(SQL["with_words"], owner.id, " | ".join(wanted), limit)
    return [remembering.memory_row(tuple(each)) for each in found]


async def near(
    db: Connection, scope: MemoryScope, embedder: str, vector: bytes, limit: int
) -> list[MemoryRow]:
    """With pgvector: the server compares."""
    owner = await find_owner(db, scope)
    if owner is None:
        return []
    found = await db.fetch(SQL["near"], owner.id, embedder, _numbers(vector), limit)
    return [remembering.memory_row(tuple(each)) for each in found]


async def near_without_extension(
    db: Connection, scope: MemoryScope, embedder: str, vector: bytes, limit: int
) -> list[MemoryRow]:
    """The same, with all vectors of the scope brought here."""
    owner = await find_owner(db, scope)
    if owner is None:
        return []
    rows = await db.fetch(SQL["vectors"], owner.id, embedder, len(array("f", vector)))
    distances = [(cosine_distance(packed(numbers), vector), -key) for key, numbers in rows]
    nearest = sorted((far, key) for far, key in distances if far is not None and far < 1)[:limit]
    order = {-key: place for place, (_, key) in enumerate(nearest)}
    found = await db.fetch(SQL["of_ids"], list(order))
    memories = [remembering.memory_row(tuple(each)) for each in found]
    return sorted(memories, key=lambda memory: order[memory.id])


async def scopes_of_user(db: Connection, user: str) -> list[MemoryScope]:
    found = await db.fetch(SQL["scopes_of_user"], user)
    return [MemoryScope(app or None, owner) for app, owner in found]


def _place(scope: MemoryScope) -> tuple[str, str]:
    return name(scope.app), name(scope.user)
