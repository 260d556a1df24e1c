"""The promise of a store that keeps memories beside its sessions, and the rows it takes and gives.

A memory belongs to a scope: a user in an app, or an app itself. No call reads or writes another
scope than the one it names, but for what erases.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import msgspec

__all__ = ["MemoryKeeper", "MemoryRow", "MemoryScope"]


class MemoryScope(msgspec.Struct, frozen=True):
    """Whose memory: a user's in an app (None is the default app), or without a user the app's."""

    app: str | None
    user: str | None


class MemoryRow(msgspec.Struct, frozen=True, kw_only=True):
    """One memory."""

    id: int = 0
    """Given by the store; the order in which the memories of a scope were first kept."""
    key: str
    content: str
    metadata: str
    """A JSON object."""
    created: int
    """When its key was first kept, in microseconds."""
    updated: int
    """When it was kept as it is now, in microseconds."""
    session: bytes | None = None
    """The uid of the session that it was taken from; it goes when that is deleted."""
    embedder: str | None = None
    """What made its vector; vectors of different embedders are never compared."""
    vector: bytes | None = None
    """32-bit floats in this machine's order; not given when it is read."""
    sources: tuple[tuple[bytes, int], ...] = ()
    """The events that it was taken from, each the uid of a session and a `seq`; it goes when one
    of them is erased. Not given when it is read."""


@runtime_checkable
class MemoryKeeper(Protocol):
    """A store that keeps memories in the same file or database as its sessions.

    Deleting a session and erasing events take the memories along that came from them, in the same
    transaction; erasing a user takes theirs, some at a time, before it is noted. Methods may be
    called from any thread and loop, and raise what those of `LogStore` raise.
    """

    async def put_memories(self, scope: MemoryScope, rows: Sequence[MemoryRow]) -> None:
        """Keep some memories durably, all or none; one with the same key is replaced.

        Raises SessionNotFound where a session that they come from was deleted, and
        HistoryErased where a source was erased; then nothing was written.
        """
        ...

    async def put_vectors(self, scope: MemoryScope, rows: Sequence[MemoryRow]) -> int:
        """Give memories another vector where their content is still the same; how many."""
        ...

    async def memories(self, scope: MemoryScope, keys: Sequence[str]) -> list[MemoryRow]:
        """The memories with these keys, in any order."""
        ...

    async def memory_page(self, scope: MemoryScope, after: int, limit: int) -> list[MemoryRow]:
        """Memories with id > `after`, in that order."""
        ...

    async def memories_with(self, scope: MemoryScope, text: str, limit: int) -> list[MemoryRow]:
        """Memories that have any word of a text, the best first."""
        ...

    async def memories_near(
        self, scope: MemoryScope, embedder: str, vector: bytes, limit: int
    ) -> list[MemoryRow]:
        """Memories whose vector, by the same embedder, points the way of this one; nearest first.

        Exact; those at a right angle or beyond are left out.
        """
        ...

    async def forget_memories(self, scope: MemoryScope, keys: Sequence[str]) -> int:
        """Remove memories for good; how many were there."""
        ...

    async def memory_scopes(self, user: str) -> list[MemoryScope]:
        """The scopes in which a user has memories."""
        ...
