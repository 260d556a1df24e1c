"""The arithmetic of `docs/scale.md`: from a load, and what one of each thing costs, to all of it.

Pure: the simulation in `scale` compares it with what it measures at 1:1000, and a test compares
the tables of the document with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

STORE_CONNECTIONS = 5
"""Of one worker: four that work, and the direct one with its lock and its heartbeat."""
HEARTBEATS, LOOKS = 2.0, 1.0
"""Statements of one worker in a second: that it lives, and whether a bell was lost."""
BELL_BYTES = 16
"""Of a bell over NATS for one session: who rings, and the session."""
PAGE_BYTES = 8_192
PAGES = 3
"""That are written whole to the WAL when a session is first changed after a checkpoint: its row,
and its leaves of two indexes of events. That they are not shared with other sessions is the worst
case, and that of a large database."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """What is asked of it."""

    sessions: int
    """That are kept."""
    messages: int
    """Of one session; two are a turn."""
    message_bytes: int
    connections: int
    """That are live at the peak."""
    turn_every: float
    """Seconds from one turn of a connection to its next."""
    turn_seconds: float
    """For which a turn is open."""
    stays: float
    """Seconds for which a connection lasts."""
    checkpoint: float = 900.0
    """Seconds between two checkpoints of PostgreSQL."""

    def divided(self, by: int) -> Load:
        """The same at 1:`by`."""
        return replace(self, sessions=self.sessions // by, connections=self.connections // by)


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What one of each costs, as measured by `scale` and the other benchmarks."""

    session_bytes: float
    """Of a session without its events, in PostgreSQL, with all indexes."""
    turn_bytes: float
    """Of the events of a turn, without the texts of its two messages; as all of a turn, of one of
    a live session."""
    turn_events: float
    turn_commits: float
    """Changes that are acknowledged; those that wait together share one transaction."""
    turn_round_trips: float
    turn_wal: float
    """Bytes of the log of PostgreSQL, with the texts, and with whole pages now and then."""
    turn_ms: float
    """Processor of the worker."""
    turn_server_ms: float
    """Processor of PostgreSQL."""
    visit_events: float
    """Of a connection that comes and goes; as all that follows."""
    visit_commits: float
    visit_round_trips: float
    visit_wal: float
    visit_ms: float
    visit_server_ms: float
    bell_ms: float
    """Processor of a worker for a bell that it hears."""
    connection_bytes: float
    """Memory of a worker for a connection that says something now and then."""
    swept_round_trips: float
    """Of a session whose time is over."""


MEASURED = Costs(
    session_bytes=1_240,
    turn_bytes=1_730,
    turn_events=6,
    turn_commits=4,
    turn_round_trips=7.3,
    turn_wal=6_000,
    turn_ms=4.0,
    turn_server_ms=1.0,
    visit_events=3,
    visit_commits=2,
    visit_round_trips=13,
    visit_wal=7_000,
    visit_ms=3.0,
    visit_server_ms=1.2,
    bell_ms=0.08,
    connection_bytes=64_000,
    swept_round_trips=17,
)
"""On the computer of `docs/scale.md`, which says by what each was measured."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What comes of a load."""

    events: float
    """Rows of events that are kept."""
    bytes: float
    """That are kept in PostgreSQL."""
    turns: float
    """A second, at the peak; as all that follows."""
    events_written: float
    commits: float
    round_trips: float
    wal: float
    """Bytes a second, but for whole pages of sessions that are far apart."""
    wal_pages: float
    """Bytes a second of these."""
    bells: float
    bell_bytes: float
    visits: float
    open_turns: float
    """At one moment."""
    seats: float
    worker_cores: float
    server_cores: float
    worker_memory: float
    """Bytes for all connections."""


def predict(load: Load, costs: Costs) -> Prediction:
    """All of it."""
    kept = load.sessions * load.messages / 2
    turns, visits = load.connections / load.turn_every, load.connections / load.stays
    commits = turns * costs.turn_commits + visits * costs.visit_commits
    text = 2 * load.message_bytes
    return Prediction(
        events=kept * costs.turn_events,
        bytes=load.sessions * costs.session_bytes + kept * (costs.turn_bytes + text),
        turns=turns,
        visits=visits,
        events_written=turns * costs.turn_events + visits * costs.visit_events,
        commits=commits,
        round_trips=turns * costs.turn_round_trips + visits * costs.visit_round_trips,
        wal=turns * costs.turn_wal + visits * costs.visit_wal,
        wal_pages=load.connections * PAGES * PAGE_BYTES / load.checkpoint,
        bells=commits,
        bell_bytes=commits * BELL_BYTES,
        open_turns=turns * load.turn_seconds,
        seats=float(load.connections),
        worker_cores=(turns * costs.turn_ms + visits * costs.visit_ms) / 1000,
        server_cores=(turns * costs.turn_server_ms + visits * costs.visit_server_ms) / 1000,
        worker_memory=load.connections * costs.connection_bytes,
    )


@dataclass(frozen=True, kw_only=True)
class Cells:
    """How many parts of a whole that know nothing of each other, and what is in each."""

    cells: int
    workers: int
    """Of one cell."""
    connections: int
    """To PostgreSQL, of one cell."""
    idle: float
    """Statements a second of one cell, whatever its load: heartbeats and looks."""
    heard: float
    """Bells a second that one worker hears."""
    hearing: float
    """Cores that one worker needs to hear them."""
    delivered: float
    """Bells a second that the NATS of one cell delivers."""


def cells(load: Load, costs: Costs, count: int, per_worker: int, cores: float) -> Cells:
    """`count` cells whose workers have `per_worker` connections and use `cores` at most."""
    predicted = predict(load, costs)
    by_connections = load.connections / per_worker
    by_processor = predicted.worker_cores / cores
    workers = math.ceil(max(by_connections, by_processor) / count)
    heard = predicted.bells / count
    return Cells(
        cells=count,
        workers=workers,
        connections=workers * STORE_CONNECTIONS,
        idle=workers * (HEARTBEATS + LOOKS),
        heard=heard,
        hearing=heard * costs.bell_ms / 1000,
        delivered=heard * workers,
    )
