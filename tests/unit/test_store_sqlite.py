"""The SQLite store as a file: what it refuses, what it survives, and who waits for it."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tertulia import doors
from tertulia.errors import (
    ConfigurationError,
    InvalidInput,
    NotAStore,
    StoreClosed,
    StoreCorrupt,
    StoreTooNew,
    StoreUnavailable,
)
from tertulia.stores import MemoryStore, SessionStore, SQLiteStore, open_store, sql
from tertulia.stores.base import Segment, SessionRow
from tertulia.stores.database import connect
from tertulia.stores.sqlite import connection, files
from tertulia.testing.store_changes import append, birth, record, seqs


async def grown(path: Path, count: int, name: str = "s") -> SessionRow:
    """A closed store with one session of so many messages."""
    store = SQLiteStore(path)
    row = await store.commit(birth(name))
    records = [record(seq, text="x" * 500) for seq in range(1, count + 1)]
    row = await store.commit(append(row, *records))
    await store.close()
    return row


def alter(path: Path, *statements: str) -> None:
    db = connect(str(path))
    for statement in statements:
        db.execute(statement).fetchall()
    db.close()


# -- what it refuses


async def test_a_file_that_is_no_database_is_not_a_store(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("dear diary, " * 1000)
    with pytest.raises(NotAStore, match=r"notes\.txt"):
        await SQLiteStore(path).find(None, "s")
    assert path.read_text().startswith("dear diary")


async def test_the_database_of_another_application_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    alter(path, "CREATE TABLE theirs (a)")
    before = path.read_bytes()
    with pytest.raises(NotAStore, match="another application"):
        await SQLiteStore(path).find(None, "s")
    assert path.read_bytes() == before


async def test_a_store_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    await grown(path, 1)
    alter(path, "PRAGMA user_version = 99")
    with pytest.raises(StoreTooNew, match="99"):
        await SQLiteStore(path).find(None, "s")


async def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="nowhere"):
        await SQLiteStore(tmp_path / "nowhere" / "x.db").find(None, "s")


async def test_a_network_file_system_is_refused_unless_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = files.file_system(str(tmp_path))
    assert here != "unknown"
    monkeypatch.setattr(files, "NETWORK", {here})
    with pytest.raises(StoreUnavailable, match=here):
        await SQLiteStore(tmp_path / "x.db").find(None, "s")
    store = SQLiteStore(tmp_path / "x.db", unsafe_fs=True)
    assert await store.find(None, "s") is None
    await store.close()


READ_ONLY = """
import asyncio, os, sys
from tertulia.errors import StoreReadOnly
from tertulia.stores import SQLiteStore
from tertulia.testing.store_changes import append, record

if os.getuid() == 0:
    os.setuid(65534)

async def main():
    store = SQLiteStore(sys.argv[1])
    row = await store.find(None, "s")
    assert row is not None and store.read_only
    try:
        await store.commit(append(row, record(row.seq + 1)))
    except StoreReadOnly as error:
        print(row.seq, error)
    await store.close()

asyncio.run(main())
"""


@pytest.mark.parametrize("folder_mode", [0o555, 0o777])
async def test_a_read_only_file_can_be_read_and_not_written(
    tmp_path: Path, folder_mode: int
) -> None:
    folder = tmp_path / "archive"
    folder.mkdir()
    await grown(folder / "x.db", 3)
    (folder / "x.db").chmod(0o444)
    folder.chmod(folder_mode)
    for parent in tmp_path.parents:
        if parent.stat().st_uid == os.getuid() and parent.name.startswith(("pytest", "popen")):
            parent.chmod(0o755)
    tmp_path.chmod(0o755)
    answer = subprocess.run(
        [sys.executable, "-c", READ_ONLY, folder / "x.db"],
        capture_output=True,
        text=True,
        check=False,
    )
    folder.chmod(0o755)
    assert answer.stdout.startswith("3 "), answer.stderr
    assert "cannot be written" in answer.stdout or "not written" in answer.stdout


async def test_a_file_is_made_for_its_owner_only(tmp_path: Path) -> None:
    await grown(tmp_path / "x.db", 1)
    store = SQLiteStore(tmp_path / "x.db")
    await store.commit(birth("t"))
    for path in [*tmp_path.iterdir(), *(tmp_path / "x.db.workers").iterdir()]:
        if path.is_file():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    await store.close()


# -- what is damaged


async def test_a_damaged_page_is_reported_and_the_rest_is_readable(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    row = await grown(path, 200)
    data = bytearray(path.read_bytes())
    place = data.index(b"x" * 500 + b" 100")
    page = place // 4096 * 4096
    data[page : page + 4096] = bytes(4096)
    path.write_bytes(data)
    store = SQLiteStore(path)
    with pytest.raises(StoreCorrupt, match=f"session {row.key}"):
        await store.records([Segment(row.key, 0, row.seq)])
    assert seqs(await store.records([Segment(row.key, 0, 50)])) == list(range(1, 51))
    await store.close()


async def test_a_missing_event_is_reported_and_never_skipped(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    row = await grown(path, 9)
    alter(path, "DELETE FROM events WHERE seq = 4")
    store = SQLiteStore(path)
    for newest in (True, False):
        with pytest.raises(StoreCorrupt, match="event 4 is missing"):
            await store.records([Segment(row.key, 0, 9)], 7, newest=newest)
    assert seqs(await store.records([Segment(row.key, 4, 9)])) == [5, 6, 7, 8, 9]
    await store.close()


async def test_a_row_that_cannot_be_read_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    await grown(path, 1)
    alter(path, "UPDATE sessions SET open_calls = '{broken'")
    store = SQLiteStore(path)
    with pytest.raises(StoreCorrupt, match="'s'"):
        await store.find(None, "s")
    await store.close()


# -- who waits for it


async def test_a_change_lands_when_its_waiter_is_cancelled(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "x.db")
    row = await store.commit(birth("s"))

    async def write() -> None:
        await store.commit(append(row, record(1)))

    task = asyncio.create_task(write())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await store.drop_requests(0)
    assert seqs(await store.records([Segment(row.key, 0, 1)])) == [1]
    await store.close()


def test_a_closed_loop_does_not_disturb_the_writer(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "x.db")

    async def leave() -> SessionRow:
        row = await store.commit(birth("s"))
        store.commit(append(row, record(1)))
        return row

    row = asyncio.run(leave())
    assert doors.call(store.drop_requests(0)) == 0
    assert seqs(doors.call(store.records([Segment(row.key, 0, 1)]))) == [1]
    doors.call(store.close())


def test_threads_without_a_loop_write_and_read(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "x.db")

    async def write(name: str) -> None:
        row = await store.commit(birth(name))
        for seq in range(1, 21):
            row = await store.commit(append(row, record(seq)))
        assert len(await store.records([Segment(row.key, 0, 20)])) == 20

    def run(name: str) -> None:
        doors.call(write(name))

    threads = [threading.Thread(target=run, args=(f"t{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [row.seq for row in doors.call(store.rows())] == [20] * 8
    doors.call(store.close())


def test_a_store_does_nothing_before_it_is_used(tmp_path: Path) -> None:
    threads = threading.active_count()
    store = SQLiteStore(tmp_path / "x.db")
    assert not list(tmp_path.iterdir())
    assert threading.active_count() == threads
    doors.call(store.close())
    with pytest.raises(StoreClosed):
        doors.call(store.find(None, "s"))
    assert not list(tmp_path.iterdir())


LEFT_OPEN = """
import asyncio, sys
from tertulia.stores import SQLiteStore
from tertulia.testing.store_changes import birth

async def main():
    store = SQLiteStore(sys.argv[1])
    for n in range(100):
        store.commit(birth(f"s{n}"))
    return store

store = asyncio.run(main())
"""


async def test_what_was_submitted_is_flushed_when_the_process_ends(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    subprocess.run([sys.executable, "-c", LEFT_OPEN, path], check=True)
    assert not (tmp_path / "x.db-wal").exists()
    store = SQLiteStore(path)
    assert len(await store.rows()) == 100
    await store.close()


# -- the schema, documents and URLs


async def test_the_schema_is_the_sum_of_the_migrations(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    await grown(path, 1)
    ours, summed = connect(str(path)), connect(":memory:")
    for script in sql.migrations():
        summed.execute(script).fetchall()
    schema = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY name"
    assert ours.execute(schema).fetchall() == summed.execute(schema).fetchall()
    assert ours.pragma("user_version") == len(sql.migrations())
    assert ours.pragma("application_id") == connection.APPLICATION_ID
    ours.close()
    summed.close()


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_documents_are_kept_whole_and_never_aliased(tmp_path: Path, kind: str) -> None:
    store: SessionStore = MemoryStore() if kind == "memory" else SQLiteStore(tmp_path / "x.db")
    data = {"messages": [{"role": "user", "content": "süß \x00 ok"}], "n": 1.5}
    store.save("a", data)
    store.save("b", {})
    data["n"] = 2
    loaded = store.load("a")
    assert loaded == {"messages": [{"role": "user", "content": "süß \x00 ok"}], "n": 1.5}
    assert store.load("a") is not loaded
    assert store.list_sessions() == ["b", "a"]
    store.save("a", {"n": 3})
    assert store.list_sessions() == ["a", "b"]
    assert store.load("a") == {"n": 3}
    assert store.exists("a")
    assert store.delete("a")
    assert not store.delete("a")
    assert not store.exists("a")
    assert store.load("a") is None
    with pytest.raises(InvalidInput):
        store.save("c", {"bad": {1, 2}})


async def test_a_synchronous_save_works_while_a_loop_runs(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "x.db")
    store.save("a", {"n": 1})
    assert store.load("a") == {"n": 1}
    await store.close()


async def test_urls_name_stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_store("memory:").level == "memory"
    relative = open_store("sqlite:///a.db")
    assert relative.url == "sqlite:///a.db"
    assert await relative.find(None, "s") is None
    await relative.close()
    assert (tmp_path / "a.db").exists()
    absolute = open_store(f"sqlite:///{tmp_path}/b%20c.db?unsafe_fs=1")
    assert await absolute.find(None, "s") is None
    await absolute.close()
    assert (tmp_path / "b c.db").exists()


@pytest.mark.parametrize(
    "url", ["", "x.db", "sqlite:x.db", "sqlite:///", "sqlite:///x?y=1", "redis:"]
)
def test_a_url_that_names_no_store_is_refused_with_what_exists(url: str) -> None:
    with pytest.raises(ConfigurationError, match="sqlite:///"):
        open_store(url)


async def test_an_erased_body_is_nowhere_in_the_files(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    store = SQLiteStore(path)
    row = await store.commit(birth("s"))
    secret = b"the launch code is 0000"
    row = await store.commit(append(row, record(1, text=secret.decode()), record(2)))
    assert await store.erase([Segment(row.key, 0, 1)]) == 1
    held = b"".join(file.read_bytes() for file in tmp_path.glob("x.db*") if file.is_file())
    assert b"hello 2" in held
    assert secret not in held
    await store.close()
