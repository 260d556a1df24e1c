"""Every store keeps memories as promised: one suite for all of them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tertulia import Runtime, SessionStore
from tertulia.stores import DocumentStore, MemoryStore, SQLiteStore, vectors
from tertulia.stores.postgres import PostgresStore, migrations
from tertulia.stores.vectors import cosine_distance, packed
from tertulia.testing.store_memories import ANN, MemoryContract, Store, keys, memory


class Documents(SessionStore):
    """The four methods, on a mapping that another process may share."""

    def __init__(self, kept: dict[str, Any]) -> None:
        self.kept = kept

    def save(self, session_id: str, data: dict[str, Any]) -> None:
        self.kept[session_id] = copy.deepcopy(data)

    def load(self, session_id: str) -> dict[str, Any] | None:
        return copy.deepcopy(self.kept.get(session_id))

    def delete(self, session_id: str) -> bool:
        return self.kept.pop(session_id, None) is not None

    def list_sessions(self) -> list[str]:
        return list(self.kept)


class TestMemoryStore(MemoryContract):
    def make(self) -> Store:
        return MemoryStore()


class TestSQLiteStore(MemoryContract):
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path) -> None:
        self.path = tmp_path / "sessions.db"

    def make(self) -> Store:
        return SQLiteStore(self.path)


class TestSQLiteStoreWithoutAnExtension(TestSQLiteStore):
    @pytest.fixture(autouse=True)
    def not_installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(vectors, "extension", lambda: None)


class TestPostgresStore(MemoryContract):
    @pytest.fixture(autouse=True)
    def databases(self, new_postgres: Callable[[], str]) -> None:
        self.new = new_postgres

    def make(self) -> Store:
        return PostgresStore(self.new())


class TestPostgresStoreWithoutAnExtension(TestPostgresStore):
    @pytest.fixture(autouse=True)
    def not_installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def never(_: object) -> bool:
            return False

        monkeypatch.setattr(migrations, "add_vectors", never)


class TestDocumentStore(MemoryContract):
    def make(self) -> Store:
        return DocumentStore(Documents({}))


class TestDocumentStoreThatKeepsOneScopeInMemory(MemoryContract):
    def make(self) -> Store:
        return DocumentStore(Documents({}), keep=1)


async def test_two_processes_on_one_store_of_documents_see_each_others_memories() -> None:
    kept: dict[str, Any] = {}
    one, other = (DocumentStore(Documents(kept)) for _ in range(2))
    await one.put_memories(ANN, [memory("a", "one", [1, 0], metadata='{"x":1}')])
    await other.put_memories(ANN, [memory("b", "two")])
    assert keys(await one.memory_page(ANN, 0, 9)) == ["a", "b"]
    assert await other.forget_memories(ANN, ["a"]) == 1
    assert keys(await one.memory_page(ANN, 0, 9)) == ["b"]
    await one.close()
    await other.close()


async def test_a_memory_from_documents_is_what_was_kept() -> None:
    kept: dict[str, Any] = {}
    first = DocumentStore(Documents(kept))
    async with Runtime(first) as runtime:
        await runtime.session("s", user_id="ann").send_message({"role": "user", "content": "hi"})
        row = await first.find(None, "s")
        assert row is not None
        whole = memory("a", "one", [1, 0], session=row.uid, sources=((row.uid, 2),))
        await first.put_memories(ANN, [whole])
    second = DocumentStore(Documents(kept))
    [found] = await second.memories(ANN, ["a"])
    assert (found.content, found.session, found.embedder) == ("one", row.uid, "e")
    assert keys(await second.memories_near(ANN, "e", packed([1, 0]), 9)) == ["a"]
    async with Runtime(second) as runtime:
        await runtime.session("s").delete()
        assert await second.memories(ANN, ["a"]) == []
    assert kept["tertulia:memory::ann"]["memories"] == []


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [([1, 0], [2, 0], 0), ([1, 0], [0, 3], 1), ([1, 1], [-1, -1], 2), ([0, 0], [1, 0], None)],
)
def test_the_distance_of_two_vectors_is_that_of_their_directions(
    one: list[float], other: list[float], expected: float | None
) -> None:
    found = cosine_distance(packed(one), packed(other))
    assert found == pytest.approx(expected, abs=1e-6)


def test_both_ways_to_measure_distance_give_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert vectors.extension() is not None
    measured = [_distance(), _with(monkeypatch, lambda: None)]
    assert measured[0] == pytest.approx(measured[1], abs=1e-6)


def _with(monkeypatch: pytest.MonkeyPatch, extension: Callable[[], str | None]) -> float:
    monkeypatch.setattr(vectors, "extension", extension)
    return _distance()


def _distance() -> float:
    from tertulia.stores.database import connect

    db = connect(":memory:")
    vectors.prepare(db)
    vectors.prepare(db)
    values = (packed([0.1, 0.7, -0.3]), packed([0.4, 0.2, 0.9]))
    ((distance,),) = db.execute("SELECT vec_distance_cosine(?, ?)", values).fetchall()
    db.close()
    return distance
