"""The tables of a database: made once, brought up to date by a command, and never guessed."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from tests.cli.program import Program

from tertulia.errors import ConfigurationError, StoreTooNew
from tertulia.stores.postgres import PostgresStore, driver, sql


def test_the_migrations_are_numbered_without_a_gap() -> None:
    names = [path.name for path in sorted(sql.FOLDER.glob("[0-9]*.sql"))]
    assert [name[:3] for name in names] == [f"{n:03}" for n in range(1, len(names) + 1)]
    assert all(re.fullmatch(r"\d{3}_\w+\.sql", name) for name in names)


async def test_a_newer_database_is_refused_and_an_older_one_asks_for_migrate(
    postgres: str,
) -> None:
    await PostgresStore(postgres).migrate()
    db = await driver.connect(postgres)
    for version, error in ((99, StoreTooNew), (0, ConfigurationError)):
        await db.execute("UPDATE tertulia.meta SET value = $1 WHERE name = 'version'", str(version))
        store = PostgresStore(postgres)
        with pytest.raises(error, match="version"):
            await store.find(None, "s")
        await store.close()
    await db.close()


async def test_many_who_open_an_empty_database_at_once_make_one_schema(postgres: str) -> None:
    stores = [PostgresStore(postgres) for _ in range(4)]
    await asyncio.gather(*(store.find(None, "s") for store in stores))
    assert len({await store.incarnation() for store in stores}) == 1
    for store in stores:
        await store.close()
    count = len(sql.migrations())
    assert await PostgresStore(postgres).migrate() == (count, count, True)


def test_the_command_says_what_it_did_and_shows_no_password(postgres: str, tmp_path: Path) -> None:
    program = Program(tmp_path)
    assert "is empty" in program.refused("sessions", store=postgres)
    for expected in ("version 1, was 0", "version 1, as it was"):
        done = program("migrate", store=postgres)
        assert (done.returncode, done.stdout.strip()) == (0, expected), done.stderr
        assert postgres.partition("@")[0].rpartition(":")[2] not in done.stdout + done.stderr
    assert "no database" in program.refused("migrate")
    assert "no file" in program.refused("doctor", store=postgres)
    assert program.json("sessions", store=postgres) == []
