"""Bringing a database up to date, and finding out whether it is."""

from __future__ import annotations

from typing import Any

from tertulia.errors import ConfigurationError, StoreTooNew
from tertulia.stores.postgres import sql
from tertulia.stores.postgres.address import Address
from tertulia.stores.postgres.connections import Connections
from tertulia.stores.postgres.driver import Connection, module
from tertulia.stores.postgres.errors import translate

SQL = sql.queries("workers.sql")


async def version(db: Connection) -> int:
    """The version of the schema, 0 where there is none."""
    return int((await meta(db)).get("version", 0))


async def meta(db: Connection) -> dict[str, str]:
    """What the store says about itself; nothing where there is no store."""
    [(there,)] = await db.fetch(SQL["is_there"])
    if not there:
        return {}
    return {each[0]: each[1] for each in await db.fetch(SQL["meta"])}


async def bring_up_to_date(address: Address) -> tuple[int, int, bool]:
    """The version before and after, and whether vectors can be compared by the server."""
    try:
        db = await Connections.connect(address.direct)
        try:
            before = await version(db)
            return before, await migrate(db), await add_vectors(db)
        finally:
            await db.close()
    except Exception as error:
        raise translate(error, address.shown) from error


async def migrate(db: Connection) -> int:
    """Do the migrations that are missing, all or none; one process at a time. Gives the version.

    Raises StoreTooNew.
    """
    scripts = sql.migrations()
    async with db.transaction():
        await db.execute(SQL["lock_migrations"])
        found = check(await version(db), "this database")
        for script in scripts[found:]:
            await db.execute(script)
        if found < len(scripts):
            await db.execute(SQL["set_version"], str(len(scripts)))
    return len(scripts)


def check(found: int, url: str) -> int:
    """The same version. Raises StoreTooNew."""
    if found > (ours := len(sql.migrations())):
        raise StoreTooNew(
            f"{url} has version {found}, and this Tertulia knows {ours}; upgrade Tertulia"
        )
    return found


def check_current(found: int, url: str) -> None:
    """Raises StoreTooNew, and ConfigurationError for one that has to be migrated first."""
    if check(found, url) < (ours := len(sql.migrations())):
        raise ConfigurationError(
            f"{url} has version {found} and must become {ours}: run `tertulia migrate`"
        )


async def add_vectors(db: Connection) -> bool:
    """Make pgvector usable where the server has it; whether it is."""
    if not (await db.fetch(SQL["has_vectors"]))[0][0]:
        if not (await db.fetch(SQL["offers_vectors"]))[0][0]:
            return False
        exceptions: Any = module("asyncpg.exceptions")
        try:
            async with db.transaction():
                await db.execute("CREATE EXTENSION IF NOT EXISTS vector")
        except (exceptions.InsufficientPrivilegeError, exceptions.UniqueViolationError):
            return bool((await db.fetch(SQL["has_vectors"]))[0][0])
    return True
