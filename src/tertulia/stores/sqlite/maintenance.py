"""A file as a whole: copying it, putting a copy back without undoing erasures, examining it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import apsw
import msgspec

from tertulia.errors import InvalidInput, StoreError, StoreUnavailable
from tertulia.stores import engine, queries, remembering, rows, sql
from tertulia.stores.base import Receipt
from tertulia.stores.database import Database, connect
from tertulia.stores.sqlite import connection, files, locks

PAGES_PER_STEP = 1_000
SQL = sql.queries("maintenance.sql")

Progress = Callable[[int, int], None]
"""Told the pages that are copied, and how many there are."""


class Worker(msgspec.Struct, frozen=True):
    """A process that opened the file."""

    uid: str
    process: int
    alive: bool


class Checkup(msgspec.Struct, frozen=True, kw_only=True):
    """What `tertulia doctor` reports of a file."""

    path: str
    bytes: int
    wal_bytes: int
    schema_version: int
    incarnation: str
    file_system: str
    file_system_is_safe: bool
    sqlite_version: str
    second_sqlite: str | None
    """The version of another SQLite library in this process, which must not open the same file."""
    workers: list[Worker]
    faults: list[str]
    """What is damaged; empty when the file is sound."""


class Restored(msgspec.Struct, frozen=True):
    """What came of a restore."""

    replayed: list[Receipt]
    """What was deleted or erased again."""
    kept: str | None
    """Where the store lies that was replaced, when it was too damaged to say what was erased."""


def backup(source: str | os.PathLike[str], target: str, progress: Progress | None = None) -> None:
    """Copy a store, which may be in use, as it is now; writers do not wait.

    Raises InvalidInput when there is a file already.
    """
    if Path(target).exists():
        raise InvalidInput(f"{target} exists already; name a new file for the backup")
    _copy(os.fspath(source), target, progress)


def restore(source: str, target: str, time: int, progress: Progress | None = None) -> Restored:
    """Put a backup in the place of a store that nobody uses.

    What was deleted or erased after the backup is deleted and erased in what is restored. A store
    too damaged to tell is kept beside it, and named: then that must be done again by hand.
    Raises StoreUnavailable while a process has the store open.
    """
    fresh = f"{target}.restoring"
    _remove(fresh)
    _refuse_used(target)
    try:
        _copy(source, fresh, progress)
        replayed = _prepare(fresh, target, time)
        _refuse_used(target)
        kept = None
        if replayed is None:
            kept = f"{target}.damaged-{time}"
            Path(target).replace(kept)
        for ending in ("-wal", "-shm"):
            Path(target + ending).unlink(missing_ok=True)
        Path(fresh).replace(target)
    finally:
        _remove(fresh)
    _sync_folder(target)
    return Restored(replayed or [], kept)


def _prepare(fresh: str, target: str, time: int) -> list[Receipt] | None:
    """Make a copy what the target will be; None where the target cannot say what was erased."""
    replayed: list[Receipt] | None = []
    try:
        with closing(connection.open_writer(fresh)) as db:
            if Path(target).exists():
                try:
                    replayed = _replay(db, target)
                except (apsw.CorruptError, apsw.NotADBError, apsw.SQLError):
                    replayed = None
                    if db.in_transaction:
                        db.execute("ROLLBACK")
            engine.atomically(db, _renew, time)
            db.wal_checkpoint(None, apsw.SQLITE_CHECKPOINT_TRUNCATE)
    except apsw.Error as error:
        raise connection.translate(error, target) from error
    return replayed


def _remove(path: str) -> None:
    for ending in ("", "-wal", "-shm"):
        Path(path + ending).unlink(missing_ok=True)


def check(path: str | os.PathLike[str]) -> Checkup:
    """Examine a file without changing it. Raises NotAStore and StoreTooNew."""
    name = str(Path(path).absolute())
    kind = files.file_system(name)
    with closing(_open(name)) as db:
        version = connection.check(db, name)
        faults = _faults(db)
        incarnation = queries.incarnation(db) if version else ""
    return Checkup(
        path=name,
        bytes=files.size(name),
        wal_bytes=files.size(f"{name}-wal"),
        schema_version=version,
        incarnation=incarnation,
        file_system=kind,
        file_system_is_safe=kind not in files.NETWORK,
        sqlite_version=apsw.sqlite_lib_version(),
        second_sqlite=_second_sqlite(),
        workers=_workers(name),
        faults=faults,
    )


def _open(path: str) -> Database:
    if not Path(path).exists():
        raise StoreUnavailable(f"{path} does not exist; name the file of a store")
    try:
        return connection.open_reader(path, read_only=not files.may_write(path))
    except apsw.Error as error:
        raise connection.translate(error, path) from error


def _copy(source: str, target: str, progress: Progress | None) -> None:
    """One snapshot of the source, by way of a file that is not yet called what it will be."""
    partial = f"{target}.partial"
    Path(partial).unlink(missing_ok=True)
    try:
        connection.create(partial)
        with closing(_open(source)) as reader, closing(connect(partial)) as copy:
            connection.check_ours(reader, source)
            reader.execute("BEGIN")
            queries.incarnation(reader)
            _step(reader, copy, progress)
            reader.execute("COMMIT")
            copy.execute("PRAGMA journal_mode = DELETE").fetchall()
        with Path(partial).open("rb") as file:
            os.fsync(file.fileno())
        Path(partial).replace(target)
    except apsw.Error as error:
        raise connection.translate(error, source) from error
    finally:
        _remove(partial)
    _sync_folder(target)


def _step(reader: Database, copy: Database, progress: Progress | None) -> None:
    with cast("Any", copy).backup("main", reader, "main") as copying:
        while not copying.done:
            copying.step(PAGES_PER_STEP)
            if progress is not None:
                progress(copying.page_count - copying.remaining, copying.page_count)


def _sync_folder(path: str) -> None:
    folder = os.open(Path(path).absolute().parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _replay(db: Database, target: str) -> list[Receipt]:
    """Do again what the receipts and the emptied bodies of a store say that was erased."""
    db.execute("ATTACH ? AS target", (target,))
    db.execute("BEGIN IMMEDIATE")
    db.execute(SQL["replay_bodies"])
    db.execute(remembering.SQL["forget_all_erased"])
    found = db.execute(SQL["newer_receipts"]).fetchall()
    receipts = [Receipt(id=n, time=time, type=kind, body=body) for n, time, kind, body in found]
    for receipt in receipts:
        _repeat(db, receipt)
    db.execute("COMMIT")
    while (key := engine.next_removal(db)) is not None:
        engine.atomically(db, engine.remove_events, key)
    db.execute("DETACH target")
    return receipts


def _repeat(db: Database, receipt: Receipt) -> None:
    engine.add_receipt(db, receipt)
    body = msgspec.json.decode(receipt.body, type=dict[str, Any])
    if uid := body.get("uid"):
        for (key,) in db.execute(SQL["session_of_uid"], (bytes.fromhex(uid),)).fetchall():
            row = queries.session(db, key)
            if row is not None:
                engine.hide_session(db, row, bool(queries.children(db, key)))
    if (hashed := body.get("user")) and not body.get("held"):
        db.execute(SQL["forget_bans"], (hashed,))
        for (user,) in db.execute(SQL["users"]).fetchall():
            if sha256(b"tertulia.1/user\0" + user.encode()).hexdigest() == hashed:
                engine.forget_user(db, user)


def _renew(db: Database, time: int) -> None:
    db.execute(SQL["renew"])
    engine.add_receipt(db, Receipt(time=time, type="store.restored", body=b"{}"))


def _refuse_used(path: str) -> None:
    for worker in _workers(str(Path(path).absolute())):
        if worker.alive:
            raise StoreUnavailable(
                f"{path} is in use by process {worker.process}; stop it before you restore"
            )


def _workers(path: str) -> list[Worker]:
    folder = files.lock_folder(path)
    found: list[Worker] = []
    for uid in locks.workers(folder):
        process = locks.process_of(folder, uid)
        found.append(Worker(uid.hex(), process, locks.is_alive(folder, uid)))
    return found


def _faults(db: Database) -> list[str]:
    try:
        found = [str(line) for (line,) in db.execute("PRAGMA quick_check(20)").fetchall()]
    except apsw.Error as error:
        return [str(error)]
    faults = [] if found == ["ok"] else found
    try:
        previous = b""
        for receipt, digest in queries.receipts_with_digests(db):
            previous = sha256(previous + rows.receipt_header(receipt)).digest()
            if digest != previous:
                faults.append(f"receipt {receipt.id} is not what was written")
                break
    except (apsw.Error, StoreError) as error:
        faults.append(str(error))
    return faults


def _second_sqlite() -> str | None:
    other = sys.modules.get("_sqlite3")
    return None if other is None else str(getattr(other, "sqlite_version", "unknown"))
