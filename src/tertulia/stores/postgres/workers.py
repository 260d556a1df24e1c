"""The workers of a database, and their seats, as SQL over one connection."""

from __future__ import annotations

from typing import Any

import msgspec

from tertulia.stores import rows as row
from tertulia.stores.base import SessionRow
from tertulia.stores.clustering import WorkerRow
from tertulia.stores.postgres import sql
from tertulia.stores.postgres.driver import Connection, Row
from tertulia.stores.postgres.writing import affected

SQL = sql.queries("workers.sql")
SESSION_COLUMNS = sql.queries("read.sql")["session_columns"]
ABANDONED = SQL["abandoned"].replace("<session_columns>", SESSION_COLUMNS)
DROP_AT_ONCE = 1_000
SETTINGS = (
    *("synchronous_commit", "synchronous_standbys", "fsync", "full_page_writes", "server_version"),
)


async def is_alive(db: Connection, worker: bytes) -> bool:
    found = await db.fetch(SQL["is_alive"], worker)
    return bool(found and found[0][0])


async def every(db: Connection) -> list[WorkerRow]:
    return [_worker(each) for each in await db.fetch(SQL["all"])]


async def find(db: Connection, worker: bytes) -> WorkerRow | None:
    for each in await db.fetch(SQL["find"], worker):
        return _worker(each)
    return None


def _worker(found: Row) -> WorkerRow:
    worker, host, process, alive, silent, since, lease, url, secret, load, *counts = found
    held, seats = counts or (0, 0)
    said: dict[str, Any] = {} if load is None else msgspec.json.decode(load)
    return WorkerRow(
        worker=worker,
        host=host,
        process=process,
        alive=alive,
        silent=silent,
        since=since,
        lease=lease,
        url=url,
        secret=secret,
        load=said,
        held=held,
        seats=seats,
    )


async def advertise(db: Connection, worker: bytes, url: str | None, secret: str | None) -> None:
    await db.execute(SQL["advertise"], worker, url, secret)


async def take_seat(db: Connection, place: str, worker: bytes, over: bytes | None) -> bytes:
    [(has,)] = await db.fetch(SQL["take_seat"], place, worker, over)
    return has


async def leave_seat(db: Connection, place: str, worker: bytes) -> None:
    await db.execute(SQL["leave_seat"], place, worker)


async def abandoned(db: Connection, limit: int, after: int) -> list[SessionRow]:
    return [row.session_row(each) for each in await db.fetch(ABANDONED, limit, after)]


async def durability(db: Connection) -> dict[str, str]:
    [found] = await db.fetch(SQL["durability"])
    return dict(zip(SETTINGS, found, strict=True))


async def forget(db: Connection) -> bool:
    """Forget some of what long dead workers left, and what is not so; whether there may be more."""
    await db.execute(SQL["drop_servers"])
    held = affected(await db.execute(SQL["drop_held"], DROP_AT_ONCE))
    seats = affected(await db.execute(SQL["drop_seats"], DROP_AT_ONCE))
    workers = affected(await db.execute(SQL["drop_workers"], DROP_AT_ONCE))
    return max(held, seats, workers) >= DROP_AT_ONCE
