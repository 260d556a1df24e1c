"""The promises of a store that keeps memories, as tests: subclass `MemoryContract` and run it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

from tertulia.errors import HistoryErased, SessionNotFound, StoreClosed
from tertulia.stores.base import LogStore, Receipt, Segment
from tertulia.stores.memories import MemoryKeeper, MemoryRow, MemoryScope
from tertulia.stores.vectors import packed
from tertulia.testing.store_changes import append, birth, record, refused, same

ANN = MemoryScope(None, "ann")
BOB = MemoryScope(None, "bob")
ANN_IN_SHOP = MemoryScope("shop", "ann")
APP = MemoryScope(None, None)


class Store(LogStore, MemoryKeeper, Protocol):
    """What is tested: a store of sessions that keeps memories too."""


def memory(key: str, content: str, vector: Sequence[float] = (), **fields: Any) -> MemoryRow:
    """A memory as short as a test wants it; its vector is of the embedder ``e``."""
    values: dict[str, Any] = {"metadata": "{}", "created": 1, "updated": 1}
    if vector:
        values |= {"embedder": "e", "vector": packed(vector)}
    return MemoryRow(key=key, content=content, **(values | fields))


def keys(rows: list[MemoryRow]) -> list[str]:
    return [row.key for row in rows]


class MemoryContract(ABC):
    """Every promise of `MemoryKeeper`, one test each."""

    @abstractmethod
    def make(self) -> Store:
        """A new, empty store."""

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[Store]:
        store = self.make()
        try:
            yield store
        finally:
            await store.close()

    async def test_a_memory_is_kept_and_replaced_under_its_key(self) -> None:
        async with self.opened() as store:
            await store.put_memories(ANN, [memory("a", "one"), memory("b", "two")])
            await store.put_memories(ANN, [memory("a", "uno", created=5, updated=5)])
            [found] = await store.memories(ANN, ["a", "c"])
            same((found.content, found.created, found.updated), ("uno", 1, 5))
            same(keys(await store.memories_with(ANN, "one", 9)), [])
            same(keys(await store.memories_with(ANN, "uno", 9)), ["a"])
            same(keys(await store.memory_page(ANN, 0, 1)), ["a"])
            same(keys(await store.memory_page(ANN, found.id, 9)), ["b"])

    async def test_a_scope_sees_nothing_of_another(self) -> None:
        async with self.opened() as store:
            scopes = [ANN, BOB, ANN_IN_SHOP, APP, MemoryScope("shop", None)]
            for number, scope in enumerate(scopes):
                await store.put_memories(scope, [memory("k", f"pasta number{number}", [1, 0])])
            for number, scope in enumerate(scopes):
                text = f"pasta number{number}"
                found = [
                    await store.memories(scope, ["k"]),
                    await store.memory_page(scope, 0, 9),
                    await store.memories_with(scope, "pasta", 9),
                    await store.memories_near(scope, "e", packed([1, 0]), 9),
                ]
                same([[row.content for row in rows] for rows in found], [[text]] * 4)
                other = f"number{(number + 1) % len(scopes)}"
                same(await store.memories_with(scope, other, 9), [])
            same(await store.forget_memories(BOB, ["k"]), 1)
            same([len(await store.memories(scope, ["k"])) for scope in scopes], [1, 0, 1, 1, 1])
            same(await store.memory_scopes("ann"), [ANN, ANN_IN_SHOP])

    async def test_words_are_found_whatever_their_case_accents_and_english_endings(self) -> None:
        async with self.opened() as store:
            await store.put_memories(
                ANN,
                [
                    memory("patient_history", "Chronic migraines"),
                    memory("city", "Lives in Köln, likes CAFÉS"),
                    memory("pet", "A dog called Migro"),
                ],
            )
            wanted = {
                "MIGRAINE?": ["patient_history"],
                "koln": ["city"],
                "cafe": ["city"],
                "a patient's history": ["patient_history", "pet"],
                '"; DROP TABLE memories; -- NEAR( *': [],
                "?! …": [],
            }
            for text, expected in wanted.items():
                same(keys(await store.memories_with(ANN, text, 9)), expected)
            same(len(await store.memories_with(ANN, "migraine dog koln", 2)), 2)

    async def test_vectors_of_the_same_embedder_are_compared_and_no_others(self) -> None:
        async with self.opened() as store:
            await store.put_memories(
                ANN,
                [
                    memory("east", "a", [1, 0]),
                    memory("north", "b", [0, 1]),
                    memory("northeast", "c", [2, 2]),
                    memory("other", "d", [1, 0], embedder="f"),
                    memory("longer", "e", [1, 0, 0]),
                    memory("none", "f"),
                ],
            )
            same(
                keys(await store.memories_near(ANN, "e", packed([3, 0.1]), 9)),
                ["east", "northeast", "north"],
            )
            same(keys(await store.memories_near(ANN, "e", packed([1, -1]), 9)), ["east"])
            same(keys(await store.memories_near(ANN, "e", packed([1, 0]), 1)), ["east"])
            same(keys(await store.memories_near(ANN, "f", packed([1, 0]), 9)), ["other"])

    async def test_a_vector_is_replaced_where_the_content_is_still_the_same(self) -> None:
        async with self.opened() as store:
            await store.put_memories(ANN, [memory("a", "one"), memory("b", "changed", [0, 1])])
            rows = [memory("a", "one", [1, 0]), memory("b", "two", [1, 0]), memory("c", "x")]
            same(await store.put_vectors(ANN, rows), 1)
            same(keys(await store.memories_near(ANN, "e", packed([1, 0]), 9)), ["a"])
            same(keys(await store.memory_page(ANN, 0, 9)), ["a", "b"])

    async def test_what_is_forgotten_is_found_no_more(self) -> None:
        async with self.opened() as store:
            await store.put_memories(ANN, [memory("a", "one", [1, 0]), memory("b", "two")])
            same(await store.forget_memories(ANN, ["a", "z"]), 1)
            same(await store.forget_memories(ANN, ["a"]), 0)
            same(await store.memories(ANN, ["a"]), [])
            same(await store.memories_with(ANN, "one", 9), [])
            same(await store.memories_near(ANN, "e", packed([1, 0]), 9), [])
            same(keys(await store.memory_page(ANN, 0, 9)), ["b"])

    async def test_a_memory_goes_with_the_session_that_it_came_from(self) -> None:
        async with self.opened() as store:
            one, other = [await store.commit(birth(name, user="ann")) for name in ("s", "t")]
            rows = [
                memory("taken", "one", session=one.uid, sources=((one.uid, 1),)),
                memory("inherited", "two", session=other.uid, sources=((one.uid, 1),)),
                memory("elsewhere", "three", session=other.uid, sources=((other.uid, 1),)),
                memory("said", "four"),
            ]
            await store.put_memories(ANN, rows)
            await store.put_memories(APP, rows[:1])
            await store.delete_session(one, Receipt(time=1, type="t", body=b"{}"), stub=False)
            same(keys(await store.memory_page(ANN, 0, 9)), ["elsewhere", "said"])
            same(await store.memories_with(ANN, "two", 9), [])
            same(await store.memory_page(APP, 0, 9), [])

    async def test_a_memory_goes_with_the_events_that_it_came_from(self) -> None:
        async with self.opened() as store:
            row = await store.commit(birth("s", user="ann"))
            row = await store.commit(append(row, record(1), record(2)))
            rows = [
                memory(f"of {n}", "text", session=row.uid, sources=((row.uid, n),)) for n in (1, 2)
            ]
            await store.put_memories(ANN, rows)
            same(await store.erase([Segment(row.key, 0, 1)]), 1)
            same(keys(await store.memory_page(ANN, 0, 9)), ["of 2"])
            same(keys(await store.memories_with(ANN, "text", 9)), ["of 2"])
            await refused(HistoryErased, store.put_memories(ANN, [memory("new", "x"), *rows]))
            same(keys(await store.memory_page(ANN, 0, 9)), ["of 2"])

    async def test_nothing_is_remembered_of_a_session_that_is_gone(self) -> None:
        async with self.opened() as store:
            row = await store.commit(birth("s"))
            await store.delete_session(row, Receipt(time=1, type="t", body=b"{}"), stub=False)
            late = memory("late", "x", session=row.uid)
            await refused(SessionNotFound, store.put_memories(APP, [memory("a", "b"), late]))
            same(await store.memory_page(APP, 0, 9), [])

    async def test_erasing_a_user_takes_their_memories_in_every_app(self) -> None:
        async with self.opened() as store:
            for scope in (ANN, ANN_IN_SHOP, BOB, APP):
                await store.put_memories(scope, [memory("a", "pasta", [1, 0]), memory("b", "x")])
            same(await store.erase_user("ann", Receipt(time=1, type="t", body=b"{}")), 4)
            same(await store.memory_scopes("ann"), [])
            for scope, left in ((ANN, []), (ANN_IN_SHOP, []), (BOB, ["a"]), (APP, ["a"])):
                same(keys(await store.memories_with(scope, "pasta", 9)), left)
                same(keys(await store.memories_near(scope, "e", packed([1, 0]), 9)), left)
            await store.put_memories(ANN, [memory("a", "rice")])
            same(keys(await store.memories_with(ANN, "rice", 9)), ["a"])

    async def test_a_closed_store_remembers_nothing(self) -> None:
        store = self.make()
        await store.put_memories(ANN, [memory("a", "one")])
        await store.close()
        await refused(StoreClosed, store.memories(ANN, ["a"]))
        await refused(StoreClosed, store.memories_with(ANN, "one", 9))
        await refused(StoreClosed, store.put_memories(ANN, [memory("a", "one")]))
