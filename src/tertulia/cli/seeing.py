"""What there is to see of the workers of a store: who is there, who has what."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, Literal

import msgspec

from tertulia.cli import places, texts
from tertulia.runtime import Runtime
from tertulia.stores import SQLiteStore
from tertulia.stores.base import LogStore, SessionRow
from tertulia.stores.clustering import WorkerRow
from tertulia.stores.sqlite import files, locks
from tertulia.sweeping import DUTY, standing

LOOKED_AT = 20_000
"""Sessions of a file that are looked at to find those that are held."""

State = Literal["alive", "suspect", "dead", "unknown"]


class WorkerView(msgspec.Struct, frozen=True, kw_only=True):
    """A worker, as it is shown."""

    worker: str
    host: str | None = None
    process: int | None = None
    state: State
    """`suspect` has been silent for longer than a living worker should be."""
    since: str | None = None
    lag: float | None = None
    """Seconds since its heartbeat."""
    lease: float | None = None
    url: str | None = None
    held: int = 0
    seats: int | None = None
    load: dict[str, Any] = {}


class HeldView(msgspec.Struct, frozen=True, kw_only=True):
    """A session that is held."""

    session: str
    app: str | None
    worker: str
    turn: int
    active: str


class SweepView(msgspec.Struct, frozen=True, kw_only=True):
    """Who has the duty to sweep."""

    worker: str | None
    state: State
    term: int
    since: str


class ClusterView(msgspec.Struct, frozen=True, kw_only=True):
    """All that `tertulia cluster` shows."""

    store: str
    workers: list[WorkerView]
    sweep: SweepView | None
    held: list[HeldView]
    database: dict[str, Any] | None = None
    """What a database says of itself; None for a file."""
    durability: dict[str, Any]
    notes: list[str]


async def look(runtime: Runtime, url: str, limit: int) -> ClusterView:
    """What there is now, but for ourselves; at most `limit` sessions that are held."""
    store = runtime.store
    if isinstance(store, SQLiteStore):
        return await _file(runtime, store, limit)
    return await _database(runtime, url, limit)


def file_workers(path: str) -> dict[bytes, tuple[int, bool]]:
    """The workers of a file: their processes, and whether they live."""
    folder = files.lock_folder(str(Path(path).absolute()))
    found: dict[bytes, tuple[int, bool]] = {}
    for worker in locks.workers(folder):
        process = locks.process_of(folder, worker)
        found[worker] = process, locks.is_alive(folder, worker)
    return found


async def _file(runtime: Runtime, store: SQLiteStore, limit: int) -> ClusterView:
    known = file_workers(store.path)
    rows, more = await _held_rows(runtime)
    counts = Counter(row.holder or b"" for row in rows)
    for worker in counts:
        known.setdefault(worker, (0, False))
    known.pop(store.worker, None)
    workers = [
        WorkerView(
            worker=worker.hex(),
            process=process or None,
            state="alive" if alive else "dead",
            held=counts[worker],
        )
        for worker, (process, alive) in sorted(known.items(), key=lambda each: each[1])
    ]
    note = f"what is held was looked for in the first {LOOKED_AT:,} sessions only"
    return ClusterView(
        store=store.url,
        workers=workers,
        sweep=await _sweep(store),
        held=[_held(row) for row in sorted(rows, key=lambda row: row.active)[:limit]],
        durability={"crash": True, "primary": False, "reason": "it is one file on one disk"},
        notes=[note] if more else [],
    )


async def _held_rows(runtime: Runtime) -> tuple[list[SessionRow], bool]:
    """The sessions of a file that are held, and whether there are more than were looked at."""
    found: list[SessionRow] = []
    seen = 0
    async for row in places.every_row(runtime):
        seen += 1
        if seen > LOOKED_AT:
            return found, True
        if row.holder is not None and row.open_turn is not None:
            found.append(row)
    return found, False


def _held(row: SessionRow) -> HeldView:
    return HeldView(
        session=row.id,
        app=row.app,
        worker=(row.holder or b"").hex(),
        turn=row.open_turn or 0,
        active=texts.moment(row.active),
    )


async def _database(runtime: Runtime, url: str, limit: int) -> ClusterView:
    from tertulia.stores.postgres import maintenance

    found = await maintenance.check(url)
    held = await maintenance.held(url, limit)
    return ClusterView(
        store=found.url,
        workers=[worker_view(row) for row in found.workers if row.worker != runtime.store.worker],
        sweep=await _sweep(runtime.store),
        held=[
            HeldView(
                session=one.session_id,
                app=one.app_name,
                worker=one.worker.hex(),
                turn=one.turn,
                active=texts.moment(one.active),
            )
            for one in held
        ],
        database={
            "server_version": found.server_version,
            "schema_version": found.schema_version,
            "bytes": found.bytes,
            "tables": found.tables,
            "removals": found.removals,
            **{name: value for name, value in found.settings.items() if name != "server_version"},
        },
        durability=texts.fields(found.durability),
        notes=found.faults,
    )


def worker_view(row: WorkerRow) -> WorkerView:
    """A worker as it may be shown: without what it shows to others to be let in."""
    slow = row.silent > min(2.0, 0.4 * row.lease)
    return WorkerView(
        worker=row.worker.hex(),
        host=row.host,
        process=row.process,
        state="dead" if not row.alive else "suspect" if slow else "alive",
        since=texts.moment(row.since),
        lag=round(row.silent, 1),
        lease=row.lease,
        url=row.url,
        held=row.held,
        seats=row.seats,
        load=row.load,
    )


async def _sweep(store: LogStore) -> SweepView | None:
    """None where nobody ever had the duty."""
    found, version = await standing(store, DUTY)
    if not version:
        return None
    state: State = "unknown"
    if found.worker is not None:
        alive = await store.worker_is_alive(bytes.fromhex(found.worker))
        state = "alive" if alive else "dead"
    return SweepView(
        worker=found.worker, state=state, term=found.term, since=texts.moment(found.since)
    )
