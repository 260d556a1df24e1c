"""Backup, restore and doctor: a copy is whole, and putting it back undoes no erasure."""

from __future__ import annotations

import asyncio
from hashlib import sha256
from pathlib import Path

import pytest

from tertulia import Runtime
from tertulia.errors import InvalidInput, NotAStore, StoreUnavailable
from tertulia.stores import SQLiteStore
from tertulia.stores.base import Receipt, Segment, SessionRow, SharedWrite
from tertulia.stores.database import connect
from tertulia.stores.sqlite import maintenance
from tertulia.testing.store_changes import append, birth, record, seqs


async def grown(store: SQLiteStore, name: str, count: int) -> SessionRow:
    row = await store.commit(birth(name, user="u"))
    return await store.commit(append(row, *[record(seq) for seq in range(1, count + 1)]))


def deletion(row: SessionRow) -> Receipt:
    return Receipt(time=1, type="session.deleted", body=b'{"uid":"%s"}' % row.uid.hex().encode())


async def test_a_backup_of_a_busy_store_is_whole(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "x.db")
    row = await grown(store, "s", 500)

    async def write() -> None:
        nonlocal row
        while True:
            row = await store.commit(append(row, record(row.seq + 1)))

    writing = asyncio.create_task(write())
    seen: list[tuple[int, int]] = []
    copy = str(tmp_path / "copy.db")

    def progress(done: int, total: int) -> None:
        seen.append((done, total))

    await asyncio.to_thread(maintenance.backup, tmp_path / "x.db", copy, progress)
    writing.cancel()
    await store.close()
    assert seen[-1][0] == seen[-1][1]
    opened = SQLiteStore(copy)
    found = await opened.find(None, "s")
    assert found is not None
    assert 500 <= found.seq <= row.seq
    records = await opened.records([Segment(found.key, 0, found.seq)])
    assert seqs(records) == list(range(1, found.seq + 1))
    await opened.close()
    with pytest.raises(InvalidInput, match="exists"):
        maintenance.backup(tmp_path / "x.db", copy)


async def test_what_was_erased_after_a_backup_stays_erased(tmp_path: Path) -> None:
    path, copy = str(tmp_path / "x.db"), str(tmp_path / "copy.db")
    store = SQLiteStore(path)
    kept, deleted, erased = [await grown(store, name, 4) for name in ("kept", "deleted", "erased")]
    shared = [
        SharedWrite(scope="user", app=None, user=user, key="k", value=b"1") for user in ("u", "v")
    ]
    kept = await store.commit(append(kept, shared=shared))
    before = await store.incarnation()
    maintenance.backup(path, copy)
    await store.delete_session(deleted, deletion(deleted), stub=False)
    await store.erase([Segment(erased.key, 1, 3)])
    hashed = sha256(b"tertulia.1/user\0u").hexdigest().encode()
    receipt = Receipt(time=2, type="session.erased", body=b'{"user":"%s"}' % hashed)
    await store.erase_user("u", receipt)
    expected = await store.records([Segment(erased.key, 0, 4)])
    await store.close()

    replayed = maintenance.restore(copy, path, time=3).replayed

    assert [each.type for each in replayed] == ["session.deleted", "session.erased"]
    store = SQLiteStore(path)
    assert await store.incarnation() != before
    assert await store.find(None, "deleted") is None
    assert await store.find(None, "kept") == kept
    assert await store.records([Segment(deleted.key, 0, 4)]) == []
    assert await store.records([Segment(erased.key, 0, 4)]) == expected
    assert await store.shared("user", None, "u", "k") is None
    assert await store.shared("user", None, "v", "k") is not None
    types = [each.type for each in await store.receipts()]
    assert types == ["session.deleted", "session.erased", "store.restored"]
    await store.close()
    assert maintenance.check(path).faults == []


async def test_a_store_in_use_is_not_replaced(tmp_path: Path) -> None:
    path, copy = str(tmp_path / "x.db"), str(tmp_path / "copy.db")
    store = SQLiteStore(path)
    await grown(store, "s", 1)
    maintenance.backup(path, copy)
    with pytest.raises(StoreUnavailable, match="in use"):
        maintenance.restore(copy, path, time=1)
    await store.close()
    maintenance.restore(copy, path, time=1)


async def test_only_a_store_is_backed_up_or_restored(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("dear diary, " * 1000)
    with pytest.raises(NotAStore):
        maintenance.backup(path, str(tmp_path / "copy.db"))
    with pytest.raises(NotAStore):
        maintenance.restore(str(path), str(tmp_path / "x.db"), time=1)
    assert not (tmp_path / "x.db").exists()
    assert not (tmp_path / "copy.db").exists()


async def test_the_doctor_names_workers_and_damage(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    store = SQLiteStore(path)
    await grown(store, "s", 200)
    found = maintenance.check(path)
    assert [(each.uid, each.alive) for each in found.workers] == [(store.worker.hex(), True)]
    assert found.faults == []
    assert found.wal_bytes > 0
    assert found.incarnation == await store.incarnation()
    await store.add_receipt(Receipt(time=1, type="x", body=b"{}"))
    await store.close()
    assert maintenance.check(path).workers == []

    db = connect(str(path))
    db.execute("UPDATE receipts SET body = CAST('[]' AS BLOB)")
    db.close()
    assert maintenance.check(path).faults == ["receipt 1 is not what was written"]

    data = bytearray(path.read_bytes())
    place = data.index(b"hello 100") // 4096 * 4096
    data[place : place + 4096] = bytes(4096)
    path.write_bytes(data)
    assert maintenance.check(path).faults


async def test_a_damaged_store_is_replaced_and_kept_beside_the_restored_one(tmp_path: Path) -> None:
    path, copy = str(tmp_path / "x.db"), str(tmp_path / "copy.db")
    async with Runtime(store=f"sqlite:///{path}") as runtime:
        await runtime.session("s").send_message({"role": "user", "content": "kept"})
        runtime.backup(copy)
    Path(path).write_bytes(Path(path).read_bytes()[:8_192] + b"\xff" * 40_000)

    restored = Runtime.restore(copy, path)

    assert restored.kept is not None
    assert Path(restored.kept).exists()
    assert not list(tmp_path.glob("*.restoring*"))
    async with Runtime(store=f"sqlite:///{path}") as runtime:
        assert [message.text for message in await runtime.session("s").history()] == ["kept"]
        assert not runtime.doctor().faults


async def test_a_backup_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    source = tmp_path / "no.db"
    source.write_bytes(b"this is no store" * 100)
    with pytest.raises(NotAStore):
        maintenance.backup(source, str(tmp_path / "copy.db"))
    assert [path.name for path in tmp_path.glob("copy*")] == []
