"""Opening a file: what it is, who may write it, and what its errors mean."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import apsw

from tertulia.errors import (
    NotAStore,
    StoreCorrupt,
    StoreError,
    StoreReadOnly,
    StoreTooNew,
    StoreUnavailable,
)
from tertulia.stores import database, engine, sql
from tertulia.stores.database import Database

APPLICATION_ID = 0x54455254
"""`TERT`, in the header of every file of ours."""
BUSY_MILLISECONDS = 30_000
RETRY_SECONDS = 0.002
JOURNAL_LIMIT = 32 << 20
WRITER_CACHE = 64 << 10
"""In KiB. Every session has a page of its own in an index: those in use should stay in memory."""

_creating = threading.Lock()


def translate(error: apsw.Error, path: str) -> StoreError:
    """The one place where errors of SQLite become ours."""
    for kinds, name, advice in _MEANINGS:
        if isinstance(error, kinds):
            return name(f"{path}: {error}; {advice}")
    return StoreError(f"{path}: {type(error).__name__}: {error}")


_MEANINGS: list[tuple[tuple[type[apsw.Error], ...], type[StoreError], str]] = [
    ((apsw.NotADBError, apsw.FormatError), NotAStore, "the file is no store; name another one"),
    (
        (apsw.CorruptError,),
        StoreCorrupt,
        "the file is damaged: `tertulia doctor` says where; restore a backup",
    ),
    (
        (apsw.ReadOnlyError, apsw.PermissionsError, apsw.AuthError),
        StoreReadOnly,
        "it can be read but not written; check the permissions of the file and its folder",
    ),
    (
        (apsw.BusyError, apsw.LockedError, apsw.ProtocolError),
        StoreUnavailable,
        "another process has held it for 30 s; find it with `tertulia doctor`",
    ),
    ((apsw.FullError,), StoreUnavailable, "nothing was written; make room on the disk and repeat"),
    (
        (apsw.CantOpenError,),
        StoreUnavailable,
        "check that its folder exists and may be used",
    ),
    (
        (apsw.IOError, apsw.NoMemError, apsw.InterruptError, apsw.AbortError),
        StoreUnavailable,
        "the disk or the memory failed; check them and repeat",
    ),
]


def connect(path: str, *, read_only: bool = False, vfs: str | None = None) -> Database:
    """A connection that waits for locks and never checkpoints by itself."""
    flags = apsw.SQLITE_OPEN_READONLY if read_only else apsw.SQLITE_OPEN_READWRITE
    name = path
    if read_only and _is_frozen(path):
        flags |= apsw.SQLITE_OPEN_URI
        plain = path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
        name = f"file:{plain}?immutable=1"
    db = database.connect(name, flags, vfs)
    db.set_busy_timeout(BUSY_MILLISECONDS)
    db.wal_autocheckpoint(0)
    return db


def _is_frozen(path: str) -> bool:
    """Whether nobody can be writing: no journal, and a folder in which none can be made."""
    return not Path(f"{path}-wal").exists() and not os.access(Path(path).parent, os.W_OK)


def open_reader(path: str, *, vfs: str | None = None, read_only: bool = False) -> Database:
    db = connect(path, read_only=read_only, vfs=vfs)
    db.execute("PRAGMA query_only = 1")
    return db


def open_writer(path: str, *, vfs: str | None = None) -> Database:
    """The connection that writes, its schema brought up to date."""
    db = connect(path, vfs=vfs)
    try:
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA secure_delete = 1")
        db.execute(f"PRAGMA journal_size_limit = {JOURNAL_LIMIT}")
        db.execute(f"PRAGMA cache_size = -{WRITER_CACHE}")
        if sys.platform == "darwin":
            for name in ("fullfsync", "checkpoint_fullfsync"):
                db.execute(f"PRAGMA {name} = 1")
        engine.prepare(db)
        if check(db, path) < schema_version():
            _migrate(db, path)
    except BaseException:
        db.close()
        raise
    return db


def schema_version() -> int:
    return len(sql.migrations())


def check(db: Database, path: str) -> int:
    """The version of the schema in a file, 0 for an empty one.

    Raises NotAStore and StoreTooNew.
    """
    version = int(db.pragma("user_version"))
    if db.pragma("application_id") != APPLICATION_ID:
        if version == 0 and not db.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall():
            return 0
        raise NotAStore(
            f"{path} is a database of another application; name another file, and Tertulia makes it"
        )
    if version > (ours := schema_version()):
        raise StoreTooNew(
            f"{path} has version {version}, and this Tertulia knows {ours}; upgrade Tertulia"
        )
    return version


def check_ours(db: Database, path: str) -> None:
    """Raises NotAStore also for an empty file, which only a writer makes a store."""
    if not check(db, path):
        raise NotAStore(f"{path} is empty, and cannot be written to; name another file")


def check_current(db: Database, path: str) -> None:
    """Raises StoreReadOnly for a file of an older version: only a writer brings it up to date."""
    if (version := check(db, path)) < (ours := schema_version()):
        raise StoreReadOnly(
            f"{path} has version {version} and must become {ours}, but it cannot be written to; "
            "open it once where it can, or copy it to such a place"
        )


def _use_journal(db: Database) -> None:
    """Switch to the write-ahead log; SQLite does not wait here for others who do the same."""
    until = time.monotonic() + BUSY_MILLISECONDS / 1_000
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL").fetchall()
        except apsw.BusyError:
            if time.monotonic() > until:
                raise
            time.sleep(RETRY_SECONDS)
        else:
            return


def _migrate(db: Database, path: str) -> None:
    _use_journal(db)
    db.execute("BEGIN IMMEDIATE")
    try:
        version = engine.migrate(db, check(db, path))
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {version}")
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def create(path: str) -> None:
    """Make an empty file that only its owner can read, where there is none."""
    with _creating:
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        except FileExistsError:
            return
        except OSError as error:
            raise StoreUnavailable(
                f"{path} cannot be made: {error.strerror}; name a file in a folder that exists "
                "and that you may write to"
            ) from error
