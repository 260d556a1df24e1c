"""The tables of a database: made once, brought up to date under running code, never guessed."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.cli.program import Program

from tertulia.errors import AgentError, ConfigurationError, StoreTooNew, StoreUnavailable
from tertulia.stores.base import SessionRow
from tertulia.stores.postgres import PostgresStore, driver, migrations, sql
from tertulia.stores.postgres.migrations import Migrations
from tertulia.testing.store_changes import append, birth, record, seqs, whole

NEWEST = sql.migrations()[-1].number

CATALOGS = {
    "tables": """
        SELECT c.relname, c.relkind::text, c.reloptions, pg_get_partkeydef(c.oid),
            pg_get_expr(c.relpartbound, c.oid)
        FROM pg_class c WHERE c.relnamespace = 'tertulia'::regnamespace
    """,
    "columns": """
        SELECT c.relname, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
            a.attidentity::text, a.attgenerated::text, o.collname,
            pg_get_expr(d.adbin, d.adrelid)
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        LEFT JOIN pg_collation o ON o.oid = a.attcollation
        LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE c.relnamespace = 'tertulia'::regnamespace AND NOT a.attisdropped
    """,
    "constraints": """
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
        WHERE connamespace = 'tertulia'::regnamespace
    """,
    "indexes": "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'tertulia'",
    "functions": """
        SELECT proname, pg_get_functiondef(oid) FROM pg_proc
        WHERE pronamespace = 'tertulia'::regnamespace
    """,
    "triggers": """
        SELECT tgname, pg_get_triggerdef(t.oid) FROM pg_trigger t JOIN pg_class c ON c.oid = tgrelid
        WHERE c.relnamespace = 'tertulia'::regnamespace AND NOT tgisinternal
    """,
}


@asynccontextmanager
async def connected(address: str) -> AsyncGenerator[driver.Connection]:
    db = await driver.connect(address)
    try:
        yield db
    finally:
        await db.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the migrations, with room for more."""
    made = tmp_path / "migrations"
    made.mkdir()
    for path in sql.FOLDER.glob("[0-9]*.sql"):
        shutil.copy(path, made)
    return made


def add(folder: Path, number: int, kind: str, script: str) -> None:
    (folder / f"{number:03}_more.{kind}.sql").write_text(script)


def store_of(address: str, folder: Path, newest: int | None = None) -> PostgresStore:
    """A store whose code knows the migrations of a folder, or the older ones of them."""
    store = PostgresStore(address)
    known = sql.migrations(folder)
    store.migrations = Migrations([each for each in known if each.number <= (newest or 999)])
    return store


async def refused(store: PostgresStore, error: type[AgentError], match: str) -> None:
    """Use a store that may not be used."""
    with pytest.raises(error, match=match):
        await store.find(None, "s")
    await store.close()


# -- the files


def test_the_migrations_are_numbered_without_a_gap_and_say_their_kind() -> None:
    names = [path.name for path in sorted(sql.FOLDER.glob("[0-9]*.sql"))]
    assert [name[:3] for name in names] == [f"{n:03}" for n in range(1, len(names) + 1)]
    assert all(re.fullmatch(r"\d{3}_\w+\.(pre|post)\.sql", name) for name in names)


async def catalogs(address: str) -> dict[str, list[Any]]:
    async with connected(address) as db:
        return {
            name: sorted((tuple(each) for each in await db.fetch(text)), key=repr)
            for name, text in CATALOGS.items()
        }


async def test_the_schema_is_the_sum_of_the_migrations(new_postgres: Callable[[], str]) -> None:
    summed, written, stepwise = new_postgres(), new_postgres(), new_postgres()
    await PostgresStore(summed).migrate()
    async with connected(written) as db:
        await db.execute((sql.FOLDER / "schema.sql").read_text())
    for number in range(1, NEWEST + 1):
        await store_of(stepwise, sql.FOLDER, number).migrate()
    await PostgresStore(stepwise).migrate(finish=True)
    expected = await catalogs(written)
    assert all(expected.values())
    assert await catalogs(summed) == expected
    assert await catalogs(stepwise) == expected


# -- versions


async def test_an_older_database_asks_for_migrate(postgres: str) -> None:
    await PostgresStore(postgres).migrate()
    async with connected(postgres) as db:
        await db.execute("UPDATE tertulia.meta SET value = '0' WHERE name = 'version'")
    expected = r"version 0 .*`tertulia migrate`"
    await refused(PostgresStore(postgres), ConfigurationError, expected)


async def test_many_who_open_an_empty_database_at_once_make_one_schema(postgres: str) -> None:
    stores = [PostgresStore(postgres) for _ in range(4)]
    await asyncio.gather(*(store.find(None, "s") for store in stores))
    assert len({await store.incarnation() for store in stores}) == 1
    for store in stores:
        await store.close()
    assert await PostgresStore(postgres).migrate() == (NEWEST, NEWEST, True, [], [])


async def test_many_who_migrate_at_once_do_each_migration_once(postgres: str, folder: Path) -> None:
    await PostgresStore(postgres).migrate()
    add(folder, NEWEST + 1, "pre", "CREATE TABLE tertulia.first ()")
    add(folder, NEWEST + 2, "pre", "CREATE TABLE tertulia.second ()")
    done = await asyncio.gather(*(store_of(postgres, folder).migrate() for _ in range(4)))
    assert {each.after for each in done} == {NEWEST + 2}


async def test_a_migration_that_fails_leaves_the_ones_before_it(
    postgres: str, folder: Path
) -> None:
    await PostgresStore(postgres).migrate()
    add(folder, NEWEST + 1, "pre", "CREATE TABLE tertulia.first ()")
    add(folder, NEWEST + 2, "pre", "CREATE TABLE tertulia.second (); SELECT 1 / 0")
    with pytest.raises(Exception, match="division by zero"):
        await store_of(postgres, folder).migrate()
    add(folder, NEWEST + 2, "pre", "CREATE TABLE tertulia.second ()")
    done = await store_of(postgres, folder).migrate()
    assert (done.before, done.after) == (NEWEST + 1, NEWEST + 2)


# -- old code and new code


async def test_old_and_new_code_run_on_one_database_after_a_pre_deploy_migration(
    postgres: str, folder: Path
) -> None:
    await store_of(postgres, folder, NEWEST).migrate()
    old = store_of(postgres, folder, NEWEST)
    row = await old.commit(birth("s"))
    add(folder, NEWEST + 1, "pre", "ALTER TABLE tertulia.sessions ADD COLUMN colour text")
    await refused(store_of(postgres, folder), ConfigurationError, "run `tertulia migrate`")
    done = await store_of(postgres, folder).migrate()
    assert (done.before, done.after) == (NEWEST, NEWEST + 1)
    new, late = store_of(postgres, folder), store_of(postgres, folder, NEWEST)
    for seq, store in enumerate((old, new, late, old, new, late), start=1):
        row = await store.commit(append(row, record(seq)))
    for store in (old, new, late):
        assert seqs(await store.records(whole(row))) == [1, 2, 3, 4, 5, 6]
        assert await store.worker_is_alive(new.worker)
        assert await store.worker_is_alive(old.worker)
    for store in (old, new, late):
        await store.close()


async def test_the_statements_of_the_first_schema_work_on_the_newest(postgres: str) -> None:
    """What code did that knew only the first migration."""
    await store_of(postgres, sql.FOLDER, 1).migrate()
    async with connected(postgres) as db:
        session = (b"u" * 16, bytes(32), b"v" * 16)
        text = """
            INSERT INTO tertulia.sessions (uid, app, id, base, branch, seq, digest, epoch, holder,
                visible, marks, requests, input_tokens, output_tokens, status, created, active)
            VALUES ($1, '', 's', 0, 0, 0, $2, 1, $3, 0, 0, 0, 0, 0, 'open', 1, 1)
        """
        await db.execute(text, *session)
        await PostgresStore(postgres).migrate()
        worker = b"w" * 16
        text = """
            INSERT INTO tertulia.workers AS old (
                worker, lock, epoch, host, process, lease, since, heartbeat
            )
            VALUES ($1, 1, 1, 'h', 2, 5, clock_timestamp(), clock_timestamp())
            ON CONFLICT (worker) DO UPDATE SET epoch = old.epoch + 1
        """
        await db.execute(text, worker)
        held = "SELECT worker, session FROM tertulia.held"
        assert [each[0] for each in await db.fetch(held)] == [b"v" * 16]
        await db.execute("UPDATE tertulia.sessions SET holder = $1", worker)
        assert [each[0] for each in await db.fetch(held)] == [worker]
        await db.execute("UPDATE tertulia.sessions SET holder = NULL")
        assert await db.fetch(held) == []
    store = PostgresStore(postgres)
    found = await store.find_worker(worker)
    assert found is not None
    assert (found.alive, found.host, found.load, found.url) == (True, "h", {}, None)
    await store.close()


async def test_what_old_code_needs_is_taken_away_only_when_none_of_it_runs(
    postgres: str, folder: Path
) -> None:
    await store_of(postgres, folder).migrate()
    add(folder, NEWEST + 1, "post", "ALTER TABLE tertulia.sessions DROP COLUMN parent")
    add(folder, NEWEST + 2, "pre", "ALTER TABLE tertulia.sessions ADD COLUMN colour text")
    old = store_of(postgres, folder, NEWEST)
    await old.find(None, "s")
    done = await store_of(postgres, folder).migrate()
    assert (done.after, done.left) == (NEWEST + 2, [f"{NEWEST + 1:03}_more"])
    new = store_of(postgres, folder)
    await new.find(None, "s")
    with pytest.raises(ConfigurationError, match=r"does not know.*process \d+ on "):
        await store_of(postgres, folder).migrate(finish=True)
    await old.close()
    await new.close()
    done = await store_of(postgres, folder).migrate(finish=True)
    assert (done.finished, done.left) == ([f"{NEWEST + 1:03}_more"], [])
    await refused(store_of(postgres, folder, NEWEST), StoreTooNew, "upgrade Tertulia")
    with pytest.raises(StoreTooNew):
        await store_of(postgres, folder, NEWEST).migrate()


async def test_a_worker_that_says_no_version_is_old(postgres: str, folder: Path) -> None:
    await store_of(postgres, folder).migrate()
    add(folder, NEWEST + 1, "post", "SELECT 1")
    async with connected(postgres) as db:
        await db.execute("""
            INSERT INTO tertulia.workers (
                worker, lock, epoch, host, process, lease, since, heartbeat
            ) VALUES ('w', 1, 1, 'a host', 7, 5, clock_timestamp(), clock_timestamp())
        """)
    with pytest.raises(ConfigurationError, match="process 7 on a host"):
        await store_of(postgres, folder).migrate(finish=True)


async def test_old_code_that_comes_back_after_the_end_of_its_time_does_nothing(
    postgres: str, folder: Path
) -> None:
    await store_of(postgres, folder).migrate()
    add(folder, NEWEST + 1, "post", "SELECT 1")
    old = store_of(postgres, folder, NEWEST)
    row = await old.commit(birth("s"))
    async with connected(postgres) as db:
        # as if its lease had run out meanwhile
        await db.execute("DELETE FROM tertulia.workers")
        await db.execute("INSERT INTO tertulia.meta VALUES ('least', $1)", str(NEWEST + 1))
        with pytest.raises(StoreTooNew):
            await grow(old, row)
    await old.close()


async def grow(store: PostgresStore, row: SessionRow) -> None:
    """Write until it is refused."""
    while True:
        row = await store.commit(append(row, record(row.seq + 1)))


async def test_a_new_database_needs_no_finish(postgres: str, folder: Path) -> None:
    add(folder, NEWEST + 1, "post", "SELECT 1")
    store = store_of(postgres, folder)
    await store.find(None, "s")
    await store.close()
    done = await store_of(postgres, folder).migrate()
    assert (done.before, done.left) == (NEWEST, [])
    await refused(store_of(postgres, folder, NEWEST), StoreTooNew, "upgrade Tertulia")


def test_the_command_says_what_it_did_and_shows_no_password(postgres: str, tmp_path: Path) -> None:
    program = Program(tmp_path)
    assert "is empty" in program.refused("sessions", store=postgres)
    for arguments, expected in (((), "was 0"), (("--finish",), "as it was")):
        done = program("migrate", *arguments, store=postgres)
        said = done.stdout.strip()
        assert (done.returncode, said) == (0, f"version {NEWEST}, {expected}"), done.stderr
        assert postgres.partition("@")[0].rpartition(":")[2] not in done.stdout + done.stderr
    assert "no database" in program.refused("migrate")
    assert program.json("sessions", store=postgres) == []


# -- locks of others


async def test_a_migration_does_not_keep_workers_waiting_behind_a_lock_and_says_whose_it_is(
    postgres: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "LOCK_PATIENCE", 0.1)
    await PostgresStore(postgres).migrate()
    add(folder, NEWEST + 1, "pre", "ALTER TABLE tertulia.workers ADD COLUMN more bigint")
    async with connected(f"{postgres}?application_name=backup") as backup, backup.transaction():
        await backup.fetch("SELECT * FROM tertulia.workers")
        with pytest.raises(
            StoreUnavailable, match=r"backup \(\d+\).* AccessShareLock on .*workers"
        ):
            await store_of(postgres, folder).migrate()
    assert (await store_of(postgres, folder).migrate()).after == NEWEST + 1
