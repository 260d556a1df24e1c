"""The schema is the sum of its numbered migrations, and an older file becomes one of today."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tertulia import Runtime, SQLiteStore
from tertulia.errors import StoreReadOnly
from tertulia.stores import engine, sql
from tertulia.stores.database import Database, connect
from tertulia.stores.sqlite import connection, files
from tertulia.testing.store_memories import ANN, keys, memory

VERSIONS = range(1, len(sql.migrations()))


def schema(db: Database) -> list[tuple[str, ...]]:
    """All that a database is made of, as it was said."""
    return db.execute("SELECT type, name, sql FROM sqlite_schema ORDER BY type, name").fetchall()


def content(db: Database) -> list[tuple[str, ...]]:
    """What the migrations themselves write, but for what is random."""
    return db.execute("SELECT * FROM memory_words_config ORDER BY k").fetchall()


@pytest.fixture
def older(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file as the first version made it, with a session in it."""
    path = str(tmp_path / "older.db")
    connection.create(path)
    first = sql.migrations()[:1]
    with monkeypatch.context() as patch:
        patch.setattr(sql, "migrations", lambda: first)
        db = connection.open_writer(path)
        db.execute(
            "INSERT INTO sessions (uid, app, id, base, branch, seq, digest, epoch, visible, marks,"
            " status, created, active)"
            " VALUES (x'01', 0, 's', 0, 0, 0, x'00', 0, 0, 0, 'open', 1, 1)"
        )
        db.execute("INSERT INTO branches (session, low) VALUES (1, 0)")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        db.close()
    return path


def test_the_migrations_are_numbered_without_a_gap() -> None:
    numbers = [path.name[:3] for path in sorted(sql.FOLDER.glob("[0-9]*.sql"))]
    assert numbers == [f"{number:03}" for number in range(1, len(numbers) + 1)]
    assert all(re.fullmatch(r"\d{3}_\w+\.sql", p.name) for p in sql.FOLDER.glob("[0-9]*.sql"))


@pytest.mark.parametrize("version", VERSIONS)
def test_a_schema_made_in_two_steps_is_the_one_made_at_once(
    version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripts = sql.migrations()
    at_once, in_steps = connect(":memory:"), connect(":memory:")
    assert engine.migrate(at_once, 0) == len(scripts)
    with monkeypatch.context() as patch:
        patch.setattr(sql, "migrations", lambda: scripts[:version])
        assert engine.migrate(in_steps, 0) == version
    assert schema(in_steps) != schema(at_once)
    assert engine.migrate(in_steps, version) == len(scripts)
    assert schema(in_steps) == schema(at_once)
    assert content(in_steps) == content(at_once)
    at_once.close()
    in_steps.close()


async def test_a_file_of_the_first_version_is_brought_up_to_date_when_it_is_opened(
    older: str,
) -> None:
    async with Runtime(SQLiteStore(older)) as runtime:
        session = await runtime.get("s")
        await session.send_message({"role": "user", "content": "still here"})
        assert [message.text for message in session.messages] == ["still here"]
        store = SQLiteStore(older)
        await store.put_memories(ANN, [memory("a", "new")])
        assert keys(await store.memories_with(ANN, "new", 9)) == ["a"]
        await store.close()
    db = connection.open_reader(older)
    fresh = connect(":memory:")
    engine.migrate(fresh, 0)
    assert schema(db) == schema(fresh)
    assert db.pragma("user_version") == len(sql.migrations())
    db.close()
    fresh.close()


async def test_an_older_file_that_cannot_be_written_to_says_that_it_must_be_once(
    older: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def may_write(_path: str) -> bool:
        return False

    monkeypatch.setattr(files, "may_write", may_write)
    store = SQLiteStore(older)
    with pytest.raises(StoreReadOnly, match="has version 1 and must become"):
        await store.find(None, "s")
    await store.close()
