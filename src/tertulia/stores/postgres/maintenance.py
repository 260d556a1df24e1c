"""A database as a whole: examining it, and what an acknowledged commit survives there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from tertulia.errors import NotAStore
from tertulia.stores.clustering import WorkerRow
from tertulia.stores.postgres import address as addresses
from tertulia.stores.postgres import migrations, sql, workers
from tertulia.stores.postgres.connections import STATEMENT_SECONDS, Connections
from tertulia.stores.postgres.driver import Connection
from tertulia.stores.postgres.errors import translate

T = TypeVar("T")
SQL = sql.queries("examine.sql")
VECTORS = sql.queries("workers.sql")["has_vectors"]
ON_STANDBYS = frozenset({"on", "remote_apply", "remote_write"})


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """A session whose turn is open, and the worker that holds it."""

    session_id: str
    app_name: str | None
    worker: bytes
    turn: int
    active: int
    """The time of its last event, in microseconds."""


class Durability(msgspec.Struct, frozen=True, kw_only=True):
    """What an acknowledged commit survives."""

    crash: bool
    """The end of the server, also by power loss."""
    primary: bool
    """The loss of the server with its disks."""
    reason: str


class Checkup(msgspec.Struct, frozen=True, kw_only=True):
    """What `tertulia doctor` reports of a database."""

    url: str
    server_version: str
    schema_version: int
    schema_newest: int
    """The newest version that this Tertulia knows."""
    left: list[str]
    """Migrations that wait until no older code runs."""
    incarnation: str
    vectors: bool
    """Whether the server can compare vectors."""
    bytes: int
    tables: dict[str, int]
    """Bytes of each table with its indexes, the largest first."""
    removals: int
    """Deleted sessions whose events are still to be removed."""
    durability: Durability
    settings: dict[str, str]
    workers: list[WorkerRow]
    faults: list[str]
    """What is not as it must be."""


async def check(url: str) -> Checkup:
    """Examine a database on a connection of its own, without becoming a worker of it.

    Raises NotAStore, ConfigurationError, StoreUnavailable.
    """
    address = addresses.parse(url)
    return await _ask(address, lambda db: _checkup(db, address.shown))


async def held(url: str, limit: int) -> list[Held]:
    """Sessions with an open turn and its holder, the one that has been quiet longest first.

    Raises as `check`.
    """

    async def ask(db: Connection) -> list[Held]:
        found = await db.fetch(SQL["held"], limit)
        return [
            Held(session_id=name, app_name=app or None, worker=worker, turn=turn, active=active)
            for app, name, worker, turn, active in found
        ]

    return await _ask(addresses.parse(url), ask)


async def standbys(url: str) -> int:
    """How many standbys confirm commits now. Raises as `check`."""
    return await _ask(addresses.parse(url), _standbys)


def durability(settings: dict[str, str], confirming: int) -> Durability:
    """What the settings of a server mean for what it acknowledges.

    `confirming` is how many synchronous standbys are connected.
    """
    commit = settings.get("synchronous_commit", "")
    if settings.get("fsync") == "off" or settings.get("full_page_writes") == "off":
        which = "fsync" if settings.get("fsync") == "off" else "full_page_writes"
        return Durability(crash=False, primary=False, reason=f"{which} is off")
    if commit == "off":
        return Durability(crash=False, primary=False, reason="synchronous_commit is off")
    names = settings.get("synchronous_standbys", "none")
    if names == "none":
        return Durability(crash=True, primary=False, reason="it has no synchronous standbys")
    if commit not in ON_STANDBYS:
        reason = f"synchronous_commit is {commit}, which waits for no standby"
        return Durability(crash=True, primary=False, reason=reason)
    reason = f"synchronous_commit is {commit}, synchronous standbys {names}, {confirming} connected"
    return Durability(crash=True, primary=confirming > 0, reason=reason)


async def _ask(address: addresses.Address, ask: Callable[[Connection], Awaitable[T]]) -> T:
    try:
        db = await Connections.connect(address.direct)
        try:
            async with asyncio.timeout(STATEMENT_SECONDS):
                return await ask(db)
        finally:
            db.terminate()
    except Exception as error:
        raise translate(error, address.shown) from error


async def _standbys(db: Connection) -> int:
    [(count,)] = await db.fetch(SQL["standbys"])
    return count


async def _checkup(db: Connection, shown: str) -> Checkup:
    said = await migrations.meta(db)
    if not said:
        raise NotAStore(f"{shown} is empty: run `tertulia migrate`")
    known = migrations.Migrations()
    state = migrations.State.of(said)
    missing = [each.name for each in known.missing(state, post=False)]
    settings = await workers.durability(db)
    faults = [f"migration {name} was not done: run `tertulia migrate`" for name in missing]
    survives = durability(settings, await _standbys(db))
    if not survives.crash:
        faults.append(f"what is acknowledged may be lost by a crash: {survives.reason}")
    [(size,)] = await db.fetch(SQL["bytes"])
    [(removals,)] = await db.fetch(SQL["removals"])
    [(vectors,)] = await db.fetch(VECTORS)
    return Checkup(
        url=shown,
        server_version=settings["server_version"],
        schema_version=state.version,
        schema_newest=known.newest,
        left=[each.name for each in known.missing(state, post=True)],
        incarnation=said.get("incarnation", ""),
        vectors=vectors,
        bytes=size,
        tables={each[0]: each[1] for each in await db.fetch(SQL["tables"])},
        removals=removals,
        durability=survives,
        settings=settings,
        workers=[] if missing else await workers.every(db),
        faults=faults,
    )
