"""Bringing a database up to date while it is used, and finding out whether it is."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from time import monotonic
from typing import Any, NamedTuple, TypeVar

from tertulia.errors import ConfigurationError, StoreTooNew, StoreUnavailable
from tertulia.stores.postgres import sql
from tertulia.stores.postgres.address import Address
from tertulia.stores.postgres.connections import STATEMENT_SECONDS, Connections
from tertulia.stores.postgres.driver import Connection, module
from tertulia.stores.postgres.errors import LOCKED, code_of, translate
from tertulia.stores.postgres.sql import Migration

T = TypeVar("T")
SQL = sql.queries("workers.sql")
LOCK_PATIENCE = 60.0
"""Seconds for which a migration tries to get a lock."""
LOCK_PAUSE = 1.0
"""Seconds between two attempts, in which those go on who waited behind it."""

log = logging.getLogger(__name__)


class Migrated(NamedTuple):
    """What became of a database."""

    before: int
    """Its version before: the newest pre-deploy migration that it had, 0 for none."""
    after: int
    vectors: bool
    """Whether the server can compare vectors."""
    finished: list[str]
    """The post-deploy migrations that were done now."""
    left: list[str]
    """Those that are still to be done, when no older code runs any more."""


class State(NamedTuple):
    """How far a database is."""

    version: int
    """The newest pre-deploy migration that was done, 0 where there is no store."""
    finished: int
    """The newest post-deploy migration that was done."""
    least: int
    """Code that does not know this migration may not run on it any more."""

    @classmethod
    def of(cls, found: Mapping[str, str]) -> State:
        """What a store says about itself."""
        return cls(*(int(found.get(name, 0)) for name in cls._fields))


class Migrations:
    """Those that some code knows. Pre-deploy ones do not wait for post-deploy ones before them."""

    def __init__(self, known: Sequence[Migration] | None = None) -> None:
        self._known = sql.migrations() if known is None else known
        self.newest = self._known[-1].number

    def missing(self, state: State, *, post: bool) -> list[Migration]:
        """What of a kind is yet to be done, in order."""
        done = state.finished if post else state.version
        return [each for each in self._known if each.post == post and each.number > done]

    def check(self, found: Mapping[str, str], url: str) -> None:
        """Raises StoreTooNew, and ConfigurationError for a database to be migrated first."""
        state = State.of(found)
        self.check_allowed(state, url)
        if missing := self.missing(state, post=False):
            raise ConfigurationError(
                f"{url} has version {state.version} and must become {missing[-1].number}: run "
                "`tertulia migrate`"
            )

    def check_allowed(self, state: State, url: str) -> None:
        """Raises StoreTooNew where this code is older than what may run."""
        if state.least > self.newest:
            raise StoreTooNew(
                f"{url} is for version {state.least} and later, and this Tertulia knows "
                f"{self.newest}; upgrade Tertulia"
            )

    async def make(self, db: Connection) -> None:
        """Do all of them in an empty database, or none; one process at a time."""
        async with db.transaction():
            await _lock(db)
            if State.of(await meta(db)).version == 0:
                for each in self._known:
                    await _do(db, each)

    async def apply(self, db: Connection) -> None:
        """Do the pre-deploy ones that are missing, each in a transaction. Raises StoreTooNew."""
        await _patiently(db, lambda: self.make(db))
        self.check_allowed(State.of(await meta(db)), "this database")
        while await _patiently(db, lambda: self._step(db, post=False)):
            continue

    async def finish(self, db: Connection) -> None:
        """Do the post-deploy ones that are missing; older code may not come back from now on.

        Raises ConfigurationError, naming the workers, while older code runs.
        """
        missing = self.missing(State.of(await meta(db)), post=True)
        if missing:
            least = missing[-1].number
            await _patiently(db, lambda: self._raise_least(db, least))
        while await _patiently(db, lambda: self._step(db, post=True)):
            continue

    async def _step(self, db: Connection, *, post: bool) -> bool:
        """Do the next one of a kind; False when there is none."""
        async with db.transaction():
            await _lock(db)
            missing = self.missing(State.of(await meta(db)), post=post)
            for each in missing[:1]:
                await _do(db, each)
        return bool(missing)

    async def _raise_least(self, db: Connection, least: int) -> None:
        async with db.transaction():
            await db.execute(SQL["limit_locks"])
            await db.execute(SQL["close_entrance"])
            older = await db.fetch(SQL["older"], least)
            if older:
                named = ", ".join(f"process {process} on {host}" for host, process in older)
                raise ConfigurationError(
                    f"these workers run code that does not know migration {least}: {named}; "
                    "upgrade or stop them, wait for the lease of those that are gone, and repeat"
                )
            await db.execute(SQL["set_meta"], "least", str(least))


async def _lock(db: Connection) -> None:
    """Be the only one who migrates, and wait a second at most for this and any other lock.

    What waits for a lock keeps out all who come later, heartbeats too.
    """
    await db.execute(SQL["limit_locks"])
    await db.execute(SQL["lock_migrations"])


async def _patiently(db: Connection, step: Callable[[], Awaitable[T]]) -> T:
    """What a step gives, tried again while others keep locks. Raises StoreUnavailable."""
    until = monotonic() + LOCK_PATIENCE
    while True:
        try:
            return await step()
        except Exception as error:
            if code_of(error) != LOCKED:
                raise
            found = await db.fetch(SQL["lockers"])
            holders = [
                f"{name} ({process}), for {old:.0f} s: {lock}" for process, name, old, lock in found
            ]
            whose = "; ".join(holders) or "somebody else"
            if monotonic() > until:
                raise StoreUnavailable(
                    f"a migration waits for a lock of {whose}; nothing of it was done: end that, "
                    "or wait for its end, and repeat"
                ) from error
            log.warning("a migration waits for a lock of %s", whose)
        await asyncio.sleep(LOCK_PAUSE)


async def _do(db: Connection, migration: Migration) -> None:
    await db.execute(migration.script)
    number = str(migration.number)
    for name in ("finished", "least") if migration.post else ("version",):
        await db.execute(SQL["set_meta"], name, number)


async def meta(db: Connection) -> dict[str, str]:
    """What the store says about itself; nothing where there is no store."""
    [(there,)] = await db.fetch(SQL["is_there"])
    if not there:
        return {}
    return {each[0]: each[1] for each in await db.fetch(SQL["meta"])}


async def bring_up_to_date(address: Address, migrations: Migrations, *, finish: bool) -> Migrated:
    """Do what is missing, and with `finish` what only old code needed not to be done."""
    try:
        db = await Connections.connect(address.direct)
        try:
            async with asyncio.timeout(STATEMENT_SECONDS):
                before = State.of(await meta(db))
            await migrations.apply(db)
            unfinished = State.of(await meta(db))
            if finish:
                await migrations.finish(db)
            after = State.of(await meta(db))
            left = [each.name for each in migrations.missing(after, post=True)]
            due = [each.name for each in migrations.missing(unfinished, post=True)]
            done = [name for name in due if name not in left]
            return Migrated(before.version, after.version, await add_vectors(db), done, left)
        finally:
            db.terminate()
    except Exception as error:
        raise translate(error, address.shown) from error


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
