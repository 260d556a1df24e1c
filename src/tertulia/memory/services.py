"""How memories are found: by their words, or by their words and their meaning."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import msgspec

from tertulia.errors import ModelError
from tertulia.memory import embedders
from tertulia.memory.embedders import Embedder
from tertulia.memory.ranking import fuse
from tertulia.stores.memories import MemoryKeeper, MemoryRow, MemoryScope
from tertulia.stores.vectors import packed

EMBEDDED = 8_000
"""Characters of a memory that its vector is made of: what every embedding model takes."""
AT_ONCE = 64
"""Texts that an embedder is given in one call."""
CANDIDATES = 100
"""How many of each ranking are looked at, at least."""

Found = tuple[MemoryRow, float]


@runtime_checkable
class MemoryService(Protocol):
    """Prepares memories for being found, and finds them; the store keeps them."""

    async def prepare(self, rows: Sequence[MemoryRow]) -> list[MemoryRow]:
        """The rows with what this service needs to find them, such as vectors."""
        ...

    async def search(
        self, keeper: MemoryKeeper, scope: MemoryScope, query: str, limit: int
    ) -> list[Found]:
        """The memories of a scope that fit a query, the best first, with scores of 0 to 1."""
        ...


class TextMemoryService:
    """Finds memories by their words alone; needs nothing."""

    async def prepare(self, rows: Sequence[MemoryRow]) -> list[MemoryRow]:
        """The rows as they are."""
        return list(rows)

    async def search(
        self, keeper: MemoryKeeper, scope: MemoryScope, query: str, limit: int
    ) -> list[Found]:
        """Memories that have a word of the query; those with more, and with rarer ones, first."""
        return _ranked([await keeper.memories_with(scope, query, limit)], limit)


class VectorMemoryService:
    """Finds memories by their words and by their meaning.

    `embedder` makes the vectors: an `Embedder`, the name of a provider's model such as
    ``"openai:text-embedding-3-small"``, ``"local"`` or ``"local:NAME-OR-FOLDER"`` for a model2vec
    model on this machine, or ``"off"`` for words alone. None is ``TERTULIA_EMBEDDER`` where that
    is set, else the local model where it is installed, else words alone: never a provider that
    was not named. Raises ConfigurationError for a name that cannot be; its first use raises
    MissingExtra and ConfigurationError where what was named is not here.
    """

    def __init__(self, embedder: Embedder | str | None = None) -> None:
        self._asked = embedders.check(embedder)
        self._chosen: list[Embedder | None] = []

    async def embedder(self) -> Embedder | None:
        """What makes the vectors; None where memories are found by their words alone."""
        if not self._chosen:
            self._chosen[:] = [await embedders.choose(self._asked)]
        return self._chosen[0]

    async def prepare(self, rows: Sequence[MemoryRow]) -> list[MemoryRow]:
        """The rows with their vectors. Raises ModelError."""
        embedder = await self.embedder()
        if embedder is None:
            return list(rows)
        texts = [_text(row) for row in rows]
        vectors: list[tuple[str | None, bytes | None]] = []
        for start in range(0, len(texts), AT_ONCE):
            vectors += await _embed(embedder, texts[start : start + AT_ONCE], query=False)
        return [
            msgspec.structs.replace(row, embedder=name, vector=vector)
            for row, (name, vector) in zip(rows, vectors, strict=True)
        ]

    async def search(
        self, keeper: MemoryKeeper, scope: MemoryScope, query: str, limit: int
    ) -> list[Found]:
        """Both rankings made one by `fuse`. Raises ModelError."""
        depth = max(limit, CANDIDATES)
        rankings = [await keeper.memories_with(scope, query, depth)]
        embedder = await self.embedder()
        if embedder is not None:
            [(name, vector)] = await _embed(embedder, [query[:EMBEDDED]], query=True)
            near: list[MemoryRow] = []
            if name is not None and vector is not None:
                near = await keeper.memories_near(scope, name, vector, depth)
            rankings.append(near)
        return _ranked(rankings, limit)


def _ranked(rankings: Sequence[Sequence[MemoryRow]], limit: int) -> list[Found]:
    rows = {row.id: row for ranking in rankings for row in ranking}
    numbers = [[row.id for row in ranking] for ranking in rankings]
    return [(rows[number], score) for number, score in fuse(numbers, limit)]


def _text(row: MemoryRow) -> str:
    """What is embedded: the content after its key, where a person chose that."""
    named = f"{row.key.replace('_', ' ')}: " if row.session is None else ""
    return f"{named}{row.content}"[:EMBEDDED]


async def _embed(
    embedder: Embedder, texts: list[str], *, query: bool
) -> list[tuple[str | None, bytes | None]]:
    """The vectors of texts, each with the name under which it may be compared.

    None for a text that the embedder knows nothing of. Raises ModelError.
    """
    vectors = await embedder.embed(texts, query=query)
    expected = embedder.dimensions or (len(vectors[0]) if vectors else 0)
    fits = len(vectors) == len(texts) and all(len(each) == expected > 0 for each in vectors)
    if not fits or not all(math.isfinite(number) for each in vectors for number in each):
        raise ModelError(
            f"{embedder.name} did not give {len(texts)} vectors of {expected} numbers; check what "
            "its endpoint answers"
        )
    name = f"{embedder.name}/{expected}"
    return [(name, packed(each)) if any(each) else (None, None) for each in vectors]
