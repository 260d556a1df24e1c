"""`tertulia backup`, `restore` and `doctor`: the store as a whole."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import apsw
import click

import tertulia as package
from tertulia import settings
from tertulia.cli import places, texts
from tertulia.cli.progress import Bar
from tertulia.clock import SystemClock
from tertulia.errors import NotAStore, StoreCorrupt, UsageError
from tertulia.runtime import Runtime
from tertulia.stores import SQLiteStore, open_store
from tertulia.stores.sqlite import maintenance
from tertulia.stores.sqlite.maintenance import Checkup

BAD = 1
"""The exit status when something is not as it should be."""
DUMP = "pg_dump copies a database while it is used, and pg_basebackup a whole server"
LOAD = (
    "load a dump with pg_restore into an empty database while no worker uses it, and then erase "
    "again what was erased since the dump"
)

file_argument = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.argument("file", type=file_argument)
@places.store_option
def backup(file: Path, store: str) -> None:
    """Copy the store, which may be in use, to a new FILE, which is a store itself."""
    source = _file_of(store, DUMP)
    places.check_file(source)
    bar = Bar("backup")
    try:
        maintenance.backup(source, str(file), bar.reach)
    finally:
        bar.close()
    click.echo(f"wrote {file} ({texts.count(file.stat().st_size, 'byte')})", err=True)


@click.command()
@click.argument("file", type=file_argument)
@click.option("--yes", is_flag=True, help="Do not ask.")
@places.store_option
def restore(file: Path, yes: bool, store: str) -> None:
    """Put a backup, FILE, in the place of the store, while no process uses that.

    What was deleted or erased after the backup is deleted and erased in what is restored.
    """
    target = _file_of(store, LOAD)
    if not file.exists():
        raise UsageError(f"there is no backup at {file}; name the file that `backup` wrote")
    places.check_file(file)
    if target.exists():
        places.confirm(f"replace {target} by {file}", yes)
    bar = Bar("restore")
    try:
        restored = maintenance.restore(str(file), str(target), SystemClock().now(), bar.reach)
    finally:
        bar.close()
    count = len(restored.replayed)
    again = f", and repeated {texts.count(count, 'erasure')}" if count else ""
    click.echo(f"restored {target}{again}", err=True)
    if restored.kept is not None:
        click.echo(
            f"the store before it was too damaged to say what was erased since the backup; it is "
            f"kept as {restored.kept}, and those erasures must be done again",
            err=True,
        )


@click.command()
@click.option("--sessions", is_flag=True, help="Also verify the log of every session.")
@places.json_option
@places.store_option
def doctor(sessions: bool, as_json: bool, store: str) -> None:
    """Examine the store: damage, file system, size, the processes that have it open.

    Of a database: its version, its size, what an acknowledged commit survives, its workers, and
    what is yet to be removed. Exit status 1 when something is not as it must be.
    """
    faults = (_database if places.is_database(store) else _file)(store, sessions, as_json)
    if faults:
        click.get_current_context().exit(BAD)


def _file(store: str, sessions: bool, as_json: bool) -> list[str]:
    """Examine and report a file; its faults."""
    file = _file_of(store)
    places.check_file(file)
    found = _examined(file)
    faults = [*found.faults, *(_unsound(store) if sessions and not found.faults else [])]
    if as_json:
        texts.print_json({**texts.fields(found), "faults": faults, "notes": list(_notes(found))})
    else:
        _print(found, faults)
    return faults


def _database(store: str, sessions: bool, as_json: bool) -> list[str]:
    """Examine and report a database; its faults."""
    from tertulia.cli import database  # needs the driver of databases

    found = database.examined(store)
    usable = found.schema_version == found.schema_newest
    faults = [*found.faults, *(_unsound(store) if sessions and usable else [])]
    database.report(found, faults, as_json)
    return faults


def _file_of(store: str, instead: str = "") -> Path:
    """The file of a store, which is named. Raises UsageError where it has none.

    `instead` is how that is done with a database.
    """
    click.echo(f"store: {places.shown(store)}", err=True)
    found = open_store(store)
    if places.is_database(store):
        raise UsageError(f"{places.shown(store)} is a database, and no file: {instead}")
    if not isinstance(found, SQLiteStore):
        raise UsageError(f"{places.shown(store)} is no file; name a store like sqlite:///x.db")
    return Path(found.path)


def _examined(file: Path) -> Checkup:
    """What a checkup finds. Raises StoreCorrupt where the damage stands in its own way."""
    try:
        return maintenance.check(file)
    except apsw.NotADBError as error:
        raise NotAStore(f"{file}: {error}; the file is no store; name another one") from None
    except apsw.Error as error:
        raise StoreCorrupt(
            f"{file} is damaged so far that it cannot be examined ({error}); restore a backup"
        ) from None


def _unsound(store: str) -> list[str]:
    """What does not fit in the logs of all sessions."""

    async def work(runtime: Runtime) -> list[str]:
        faults: list[str] = []
        async for row in places.every_row(runtime):
            found = await runtime.session(row.id, app_name=row.app).verify()
            if not found:
                faults.append(f"session {row.id}: {found.reason}")
        return faults

    return places.run(store, work, bar=Bar("verify"), quiet=True)


def _notes(found: Checkup) -> Iterator[str]:
    """What is no damage, and should be known."""
    if not found.file_system_is_safe:
        yield f"file locks cannot be trusted on {found.file_system}; use a local disk"
    if found.second_sqlite is not None:
        yield f"this process also has SQLite {found.second_sqlite}, which must not open the file"
    if found.wal_bytes > max(found.bytes, 64 << 20):
        yield "the write-ahead log is larger than the store; some process keeps on reading"


def _print(found: Checkup, faults: list[str]) -> None:
    texts.print_facts(
        [
            ("tertulia", f"{package.__version__}, Python {sys.version.split()[0]}"),
            ("file", found.path),
            ("size", texts.count(found.bytes, "byte")),
            ("wal", texts.count(found.wal_bytes, "byte")),
            ("schema", found.schema_version),
            ("incarnation", found.incarnation),
            ("sqlite", found.sqlite_version),
            ("file system", found.file_system),
            ("model", settings.model()),
        ]
    )
    for worker in found.workers:
        state = "lives" if worker.alive else "died"
        click.echo(f"process {worker.process} {state} (worker {worker.uid[:8]})")
    for note in _notes(found):
        click.echo(f"note: {note}")
    for fault in faults:
        click.echo(f"BAD: {texts.short(fault, 400)}")
    click.echo("BAD: restore a backup" if faults else "ok: nothing is damaged")
