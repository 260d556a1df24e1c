"""The tables of `docs/scale.md`, made from `scale_model`; a test compares the two.

python -m benchmarks.scale_tables
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmarks.scale_model import (
    HEARTBEATS,
    LOOKS,
    MEASURED,
    STORE_CONNECTIONS,
    Load,
    cells,
    predict,
)

FULL = Load(
    sessions=100_000_000,
    messages=40,
    message_bytes=500,
    connections=1_000_000,
    turn_every=120.0,
    turn_seconds=5.0,
    stays=1_800.0,
)
PER_WORKER = 10_000
"""Connections that one worker takes, unless it is told otherwise."""
CORES = 0.5
"""Of a processor that one worker is meant to use: a process of Python has one."""
COUNTS = (1, 4, 16, 64)
PAGE_OF_SWEEP = 5_000
"""Sessions that one sweep looks at, once a minute."""
KEPT_DAYS = 30
"""For which a session is kept."""

Cell = str | float
Row = Sequence[Cell]


def load() -> str:
    """What is asked for."""
    return _table(
        ("", "name", "value"),
        [
            ("sessions that are kept", "S", FULL.sessions),
            ("messages of a session; two are a turn", "M", FULL.messages),
            ("bytes of the text of a message", "B", FULL.message_bytes),
            ("live connections at the peak", "C", FULL.connections),
            ("seconds from one turn of a connection to its next", "E", FULL.turn_every),
            ("seconds for which a turn is open", "D", FULL.turn_seconds),
            ("seconds for which a connection lasts", "L", FULL.stays),
            ("seconds from one checkpoint of PostgreSQL to the next", "F", FULL.checkpoint),
        ],
    )


def costs() -> str:
    """What one of each costs."""
    one = MEASURED
    return _table(
        ("", "name", "value", "measured by"),
        [
            (
                "bytes of a session without events, in PostgreSQL, with all indexes",
                "s",
                one.session_bytes,
                "`scale.session_bytes`",
            ),
            (
                "bytes of a turn, without the texts of its messages",
                "t",
                one.turn_bytes,
                "`scale.turn_bytes`, less 2 B",
            ),
            ("events of a turn", "e", one.turn_events, "`scale.turn_events`"),
            ("commits of a turn", "c", one.turn_commits, "`scale.bells`"),
            (
                "round trips to the database of a turn",
                "r",
                one.turn_round_trips,
                "`scale.round_trips`",
            ),
            ("bytes of WAL of a turn", "w", one.turn_wal, "`scale.wal`"),
            (
                "ms of a worker's processor for a turn",
                "p",
                one.turn_ms,
                "`scale.worker_cpu`, `cluster.turn.cpu`",
            ),
            (
                "ms of PostgreSQL's processor for a turn",
                "q",
                one.turn_server_ms,
                "`scale.postgres_cpu`, `cluster.turn.postgres_cpu`",
            ),
            (
                "events of a visit: a connection that comes and goes",
                "ve",
                one.visit_events,
                "`scale.events`",
            ),
            ("commits of a visit", "vc", one.visit_commits, "`scale.bells`"),
            ("round trips of a visit", "vr", one.visit_round_trips, "`scale.round_trips`"),
            ("bytes of WAL of a visit", "vw", one.visit_wal, "`scale.wal`"),
            ("ms of a worker's processor for a visit", "vp", one.visit_ms, "`scale.worker_cpu`"),
            (
                "ms of PostgreSQL's processor for a visit",
                "vq",
                one.visit_server_ms,
                "`scale.postgres_cpu`",
            ),
            (
                "ms of a worker's processor for a bell that it hears",
                "b",
                one.bell_ms,
                "`cluster.turn.cpu.nats`",
            ),
            (
                "bytes of a worker's memory for a connection that speaks now and then",
                "m",
                one.connection_bytes,
                "`scale.memory`; idle ones `socket.idle`",
            ),
            (
                "round trips to sweep a session",
                "z",
                one.swept_round_trips,
                "`scale.round_trips` of a quick run",
            ),
        ],
    )


def whole() -> str:
    """What comes of it, all together."""
    found = predict(FULL, MEASURED)
    return _table(
        ("", "formula", "value"),
        [
            ("turns a second", "`T = C / E`", found.turns),
            ("connections that come, a second", "`V = C / L`", found.visits),
            ("open turns at one moment", "`T * D`", found.open_turns),
            ("rows of events that are kept", "`S * M / 2 * e`", found.events),
            ("GB that are kept", "`S * (s + M / 2 * (t + 2 B))`", found.bytes / 1e9),
            ("commits a second", "`K = T * c + V * vc`", found.commits),
            ("rows of events a second", "`T * e + V * ve`", found.events_written),
            ("round trips a second", "`T * r + V * vr`", found.round_trips),
            ("MB of WAL a second", "`T * w + V * vw`", found.wal / 1e6),
            ("MB of whole pages in the WAL a second", "`C * 3 * 8 KB / F`", found.wal_pages / 1e6),
            ("bells a second", "`K`", found.bells),
            ("seats", "C", found.seats),
            ("cores of workers", "`T * p + V * vp`", found.worker_cores),
            ("cores of PostgreSQL", "`T * q + V * vq`", found.server_cores),
            ("GB of memory of workers, for connections", "`C * m`", found.worker_memory / 1e9),
            (f"sessions whose {KEPT_DAYS} days are over, a second", "`S / days`", _swept(1)),
            (
                "round trips of sweeps, a second",
                "`S / days * z`",
                _swept(1) * MEASURED.swept_round_trips,
            ),
        ],
    )


def parts() -> str:
    """The same in cells."""
    rows: list[Row] = []
    found = predict(FULL, MEASURED)
    for count in COUNTS:
        each = cells(FULL, MEASURED, count, PER_WORKER, CORES)
        rows.append(
            (
                each.cells,
                each.workers,
                each.connections,
                each.idle,
                found.bytes / count / 1e9,
                found.bytes / count / 16 / 1e9,
                found.round_trips / count,
                (found.wal + found.wal_pages) / count / 1e6,
                found.server_cores / count,
                each.heard,
                each.hearing,
                each.delivered,
                _swept(count),
            )
        )
    head = (
        "cells",
        "workers",
        "connections to PostgreSQL",
        "idle statements/s",
        "GB",
        "GB of a partition of 16",
        "round trips/s",
        "MB of WAL/s",
        "cores of PostgreSQL",
        "bells/s that a worker hears",
        "cores of a worker, to hear",
        "bells/s that NATS delivers",
        "sessions swept/s",
    )
    return _table(head, rows)


def following() -> str:
    """What it costs that bells may be lost."""
    many = (100, 1_000, 10_000)
    rows = [(each, float(each), LOOKS, -(-each // 1_000)) for each in many]
    return _table(
        (
            "followers at a worker",
            "statements/s, if each polled every second",
            "looks/s",
            "statements of a look",
        ),
        rows,
    )


def workers() -> str:
    """What workers cost that do nothing."""
    rows: list[Row] = []
    for count in (2, 10, 50, 200):
        alone = HEARTBEATS + LOOKS
        rows.append((count, count * STORE_CONNECTIONS, count, count * alone))
    return _table(
        ("workers", "connections", "of them direct, past a pooler", "idle statements/s"), rows
    )


def tables() -> list[str]:
    """All of them, in the order of the document."""
    return [load(), costs(), whole(), parts(), workers(), following()]


def _swept(count: int) -> float:
    return FULL.sessions / KEPT_DAYS / 86_400 / count


def _table(head: Sequence[str], rows: Iterable[Row]) -> str:
    lines = [head, ["---"] * len(head), *([_shown(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _shown(cell: Cell) -> str:
    """Three digits that count, and whole numbers whole."""
    if isinstance(cell, str):
        return cell
    if isinstance(cell, int) or cell == int(cell) or cell >= 1000:
        return f"{round(float(f'{cell:.3g}')) if isinstance(cell, float) else cell:,}"
    return f"{float(f'{cell:.3g}'):g}"


if __name__ == "__main__":
    print("\n\n".join(tables()))
