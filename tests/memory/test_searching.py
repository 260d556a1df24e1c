"""A search by words and by meaning at once, and what happens when the embedder changes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tertulia import Memory, Runtime, VectorMemoryService
from tertulia.errors import ModelError
from tertulia.memory import MemoryEntry
from tertulia.memory.ranking import fuse


class Fixed:
    """An embedder whose vectors are written down; it knows nothing of other texts."""

    def __init__(self, name: str, **vectors: list[float]) -> None:
        self.name = name
        self.dimensions = len(next(iter(vectors.values())))
        self.asked: list[tuple[str, bool]] = []
        self._vectors = vectors

    async def embed(self, texts: list[str], *, query: bool = False) -> Sequence[Sequence[float]]:
        self.asked += [(text, query) for text in texts]
        return [self._vectors.get(text.split()[-1], [0.0] * self.dimensions) for text in texts]


def keys(found: Sequence[MemoryEntry]) -> list[str]:
    return [each.key for each in found]


async def test_what_fits_by_words_and_by_meaning_comes_first(
    runtime: Runtime, model_folder: Path
) -> None:
    memory = Memory(VectorMemoryService(f"local:{model_folder}"), "ann", runtime=runtime)
    await memory.store("a", "the pill is in the drawer")
    await memory.store("b", "a headache on Monday")
    await memory.store("c", "the drawer is full of socks")
    found = await memory.search("headache drawer")
    assert found[0].key in {"a", "b"}
    assert set(keys(found)) == {"a", "b", "c"}
    scores = [entry.score or 0 for entry in found]
    assert scores == sorted(scores, reverse=True)
    assert 0 < scores[-1] < scores[0] <= 1
    assert keys(await memory.search("headache drawer", limit=1)) == keys(found)[:1]


async def test_what_only_the_meaning_finds_is_found(runtime: Runtime, model_folder: Path) -> None:
    memory = Memory(VectorMemoryService(f"local:{model_folder}"), "ann", runtime=runtime)
    await memory.store("health", "Chronic migraine")
    assert keys(await memory.search("pill")) == ["health"]
    words = Memory(VectorMemoryService("off"), "ann", runtime=runtime)
    assert await words.search("pill") == []


async def test_two_users_with_vectors_see_nothing_of_each_other(
    runtime: Runtime, model_folder: Path
) -> None:
    service = VectorMemoryService(f"local:{model_folder}")
    ann, bob = (Memory(service, user, runtime=runtime) for user in ("ann", "bob"))
    await ann.store("hers", "migraine")
    await bob.store("his", "migraine")
    assert keys(await ann.search("headache")) == ["hers"]
    assert keys(await bob.search("migraine pill")) == ["his"]
    await ann.forget("hers")
    assert await ann.search("migraine") == []


async def test_vectors_of_two_embedders_are_never_compared(runtime: Runtime) -> None:
    old, new = Fixed("old", cat=[1, 0], dog=[0, 1]), Fixed("new", cat=[0, 1], dog=[1, 0])
    before = Memory(VectorMemoryService(old), "ann", runtime=runtime)
    after = Memory(VectorMemoryService(new), "ann", runtime=runtime)
    await before.store("a", "a cat")
    assert keys(await before.search("my cat")) == ["a"]
    assert keys(await after.search("my dog")) == []
    assert keys(await after.search("cat")) == ["a"]
    await after.store("b", "one big dog")
    assert keys(await after.search("no dog")) == ["b"]
    assert await after.reembed() == 2
    assert await before.search("kind of dog") != []
    assert keys(await after.search("old dog")) == ["b"]
    assert keys(await after.search("other cat")) == ["a"]


async def test_the_same_name_with_other_dimensions_is_another_embedder(runtime: Runtime) -> None:
    short, long = Fixed("m", cat=[1, 0]), Fixed("m", cat=[1, 0, 0], pet=[1, 0, 0])
    await Memory(VectorMemoryService(short), "ann", runtime=runtime).store("a", "a cat")
    memory = Memory(VectorMemoryService(long), "ann", runtime=runtime)
    assert await memory.search("pet") == []
    assert await memory.reembed() == 1
    assert keys(await memory.search("pet")) == ["a"]


async def test_reembedding_reaches_what_had_no_vector_and_keeps_the_rest(runtime: Runtime) -> None:
    plain = Memory(VectorMemoryService("off"), "ann", runtime=runtime)
    stored = [await plain.store(f"k{n}", f"number {n} cat", note=n) for n in range(3)]
    assert await plain.reembed() == 0
    memory = Memory(VectorMemoryService(Fixed("m", cat=[1.0], pet=[1.0])), "ann", runtime=runtime)
    assert await memory.search("pet") == []
    assert await memory.reembed() == 3
    assert len(await memory.search("pet")) == 3
    assert await memory.recall(["k0", "k1", "k2"]) == stored


async def test_a_text_that_the_embedder_does_not_know_is_found_by_its_words(
    runtime: Runtime,
) -> None:
    memory = Memory(VectorMemoryService(Fixed("m", cat=[1.0])), "ann", runtime=runtime)
    await memory.store("a", "something unheard")
    assert keys(await memory.search("unheard")) == ["a"]
    assert await memory.search("cat") == []


async def test_an_embedder_is_told_what_it_embeds_for(runtime: Runtime) -> None:
    embedder = Fixed("m", cat=[1.0])
    memory = Memory(VectorMemoryService(embedder), "ann", runtime=runtime)
    await memory.store("my_pet", "a cat")
    await memory.search("which cat")
    assert embedder.asked == [("my pet: a cat", False), ("which cat", True)]


async def test_an_embedder_that_does_not_keep_to_its_dimensions_is_refused(
    runtime: Runtime,
) -> None:
    embedder = Fixed("m", cat=[1.0, 0.0], dog=[1.0])
    memory = Memory(VectorMemoryService(embedder), "ann", runtime=runtime)
    with pytest.raises(ModelError, match="m did not give 1 vectors of 2 numbers"):
        await memory.store("a", "a dog")
    assert await memory.entries() == []


def test_ranks_are_fused_by_the_sum_of_their_reciprocals() -> None:
    assert fuse([["a", "b"]], 9) == [("a", 1.0), ("b", pytest.approx(61 / 62))]
    both = dict(fuse([["a", "b", "c"], ["c", "a"]], 9))
    assert both["a"] == pytest.approx((1 / 61 + 1 / 62) / (2 / 61))
    assert both["c"] == pytest.approx((1 / 63 + 1 / 61) / (2 / 61))
    assert both["b"] == pytest.approx((1 / 62) / (2 / 61))
    assert list(both) == ["a", "c", "b"]
    assert fuse([["x"], ["x"]], 9) == [("x", 1.0)]
    assert fuse([["a"], []], 9) == [("a", 0.5)]
    assert fuse([[], []], 9) == []
    assert len(fuse([list(range(100))], 7)) == 7
