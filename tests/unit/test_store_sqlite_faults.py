"""What the SQLite store answers when the disk fails, and what is there afterwards."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import pytest

from tertulia.errors import AgentError, OutcomeUnknown, StoreError, StoreUnavailable
from tertulia.stores import SQLiteStore
from tertulia.stores.base import Segment, SessionRow
from tertulia.stores.sqlite import checkpoints, connection
from tertulia.testing.faulty_vfs import FaultyVFS, Operation
from tertulia.testing.store_changes import append, birth, record, seqs

numbers = itertools.count()


@pytest.fixture
def vfs() -> Iterator[FaultyVFS]:
    made = FaultyVFS(f"faulty{next(numbers)}")
    yield made
    made.unregister()


def fail(operation: Operation, times: int = 1_000_000) -> Callable[[Operation, str], bool]:
    """Fail an operation on the journal so many times."""
    left = [times]

    def fault(seen: Operation, file: str) -> bool:
        hit = seen == operation and file.endswith("-wal") and left[0] > 0
        left[0] -= hit
        return hit

    return fault


async def outcome(store: SQLiteStore, row: SessionRow, seq: int) -> str:
    try:
        await store.commit(append(row, record(seq)))
    except AgentError as error:
        return type(error).__name__
    return "written"


async def reread(path: Path, key: int) -> list[int]:
    store = SQLiteStore(path)
    row = await store.row(key)
    if row is None:
        raise AssertionError("the session is gone")
    found = seqs(await store.records([Segment(key, 0, row.seq)]))
    await store.close()
    return found


async def test_nothing_of_a_batch_is_acknowledged_when_a_write_fails(
    tmp_path: Path, vfs: FaultyVFS
) -> None:
    path = tmp_path / "x.db"
    store = SQLiteStore(path, vfs=vfs.name)
    rows = [await store.commit(birth(f"s{n}")) for n in range(20)]
    vfs.error = apsw.FullError
    vfs.fault = fail("write")
    waiting = [store.commit(append(row, record(1))) for row in rows]
    for each in waiting:
        with pytest.raises(StoreUnavailable):
            await each
    vfs.fault = None
    for row in rows:
        assert await store.row(row.key) == row
    assert await outcome(store, rows[0], 1) == "written"
    await store.close()
    assert await reread(path, rows[0].key) == [1]
    assert await reread(path, rows[1].key) == []


@pytest.mark.parametrize("operation", ["write", "sync"])
async def test_a_failed_commit_is_decided_by_a_commit_in_its_place(
    tmp_path: Path, vfs: FaultyVFS, operation: Operation
) -> None:
    path = tmp_path / "x.db"
    store = SQLiteStore(path, vfs=vfs.name)
    row = await store.commit(birth("s"))
    vfs.fault = fail(operation, times=1)
    answer = await outcome(store, row, 1)
    assert answer in {"written", "StoreUnavailable"}
    vfs.fault = None
    found = await store.row(row.key)
    assert (found != row) == (answer == "written")
    await store.close()
    assert await reread(path, row.key) == ([1] if answer == "written" else [])


async def test_an_outcome_that_cannot_be_decided_is_called_unknown(
    tmp_path: Path, vfs: FaultyVFS
) -> None:
    store = SQLiteStore(tmp_path / "x.db", vfs=vfs.name)
    row = await store.commit(birth("s"))
    vfs.fault = fail("sync")
    with pytest.raises(OutcomeUnknown):
        await store.commit(append(row, record(1)))
    vfs.fault = None
    found = await store.row(row.key)
    assert found is not None
    assert await outcome(store, found, found.seq + 1) == "written"
    await store.close()


async def test_a_store_whose_disk_came_back_goes_on(tmp_path: Path, vfs: FaultyVFS) -> None:
    path = tmp_path / "x.db"
    store = SQLiteStore(path, vfs=vfs.name)
    row = await store.commit(birth("s"))
    vfs.fault = lambda operation, _: operation in {"sync", "open"}
    with pytest.raises(OutcomeUnknown):
        await store.commit(append(row, record(1)))
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            await store.commit(append(row, record(1)))
    vfs.fault = None
    found = await store.row(row.key)
    assert found is not None
    assert await outcome(store, found, found.seq + 1) == "written"
    await store.close()
    assert await reread(path, row.key) == list(range(1, found.seq + 2))


async def test_a_checkpoint_that_fails_loses_nothing(
    tmp_path: Path, vfs: FaultyVFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "DUE_PAGES", 2)
    path = tmp_path / "x.db"
    store = SQLiteStore(path, vfs=vfs.name)
    row = await store.commit(birth("s"))
    vfs.fault = lambda _, file: file.endswith(".db")
    for seq in range(1, 21):
        row = await store.commit(append(row, record(seq)))
    assert any(file.endswith(".db") for _, file in vfs.seen)
    vfs.fault = None
    await store.close()
    assert await reread(path, row.key) == list(range(1, 21))


async def test_what_was_acknowledged_before_a_fault_survives_it(
    tmp_path: Path, vfs: FaultyVFS
) -> None:
    path = tmp_path / "x.db"
    store = SQLiteStore(path, vfs=vfs.name)
    row = await store.commit(birth("s"))
    acknowledged: list[int] = []
    for n in range(60):
        vfs.fault = fail("sync" if n % 2 else "write", times=n % 4) if n % 5 == 0 else None
        seq = row.seq + 1
        if await outcome(store, row, seq) == "written":
            acknowledged.append(seq)
        vfs.fault = None
        row = await store.row(row.key) or row
    await store.close()
    found = await reread(path, row.key)
    assert set(acknowledged) <= set(found)
    assert found == list(range(1, len(found) + 1))


def test_every_error_of_the_driver_becomes_one_of_ours() -> None:
    kinds = [kind for kind in vars(apsw).values() if isinstance(kind, type)]
    errors = [kind for kind in kinds if issubclass(kind, apsw.Error)]
    assert len(errors) > 20
    for kind in errors:
        ours = connection.translate(kind("why"), "x.db")
        assert isinstance(ours, StoreError)
        assert "x.db" in str(ours)
