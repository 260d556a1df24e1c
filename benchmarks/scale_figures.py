"""What the simulated day was, beside what was computed."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from benchmarks.cluster_servers import versions
from benchmarks.figures import Figure, Target
from benchmarks.measure import Bench
from benchmarks.scale_filling import DUE, Filled
from benchmarks.scale_model import MEASURED, STORE_CONNECTIONS, predict
from benchmarks.scale_town import Town, mean
from benchmarks.workloads import milliseconds

WORKERS = 2
"""At one time."""
SHORT_EVENTS = 8
"""Of a session that is swept."""
PREDICTED = "the arithmetic"
EXACT, NEAR = 1.15, 1.6
"""How far what was measured may be over what was predicted; near where the computer matters."""
NOTHING = Target("value", "==", 0)


class Seen(NamedTuple):
    """What there is at one moment, and what has been done until then."""

    events: float
    bytes: float
    transactions: float
    wal: float
    round_trips: float
    bells: float
    worker_seconds: float
    server_seconds: float

    def since(self, before: Seen) -> Seen:
        """What has been added."""
        return Seen(*(now - then for now, then in zip(self, before, strict=True)))


@dataclass
class Day:
    """What one day was."""

    town: Town
    seconds: float
    filled: Filled
    added: Seen
    swept: float
    """Sessions whose time was over, that are gone."""
    connections: float
    """To PostgreSQL, the most at one time."""
    memory: float
    """Bytes by which that of the workers grew."""
    faults: dict[str, int]


def figures(bench: Bench, day: Day) -> Iterator[Figure]:
    """All of them."""
    medium, found = bench.medium.name, versions()
    for figure in (*_compared(day), *_alone(day)):
        yield replace(figure, medium=medium, versions=found, repetitions=1)


def _compared(day: Day) -> Iterator[Figure]:
    """Measured / predicted, for the turns and the visits that there were."""
    load, seconds, town, added = day.town.load, day.seconds, day.town, day.added
    average = replace(load, connections=round(load.connections * mean()))
    expected = predict(average, MEASURED)
    mine = of_day(day)
    yield _line("turns", town.turns, expected.turns * seconds, "", EXACT)
    yield _line("events", added.events + day.swept * SHORT_EVENTS, mine.events, "rows", EXACT)
    yield _line("bells", added.bells, mine.bells, "", EXACT)
    yield _line("round_trips", added.round_trips, mine.round_trips, "", EXACT)
    yield _line("bytes", added.bytes, mine.bytes, "bytes", NEAR)
    yield _line("wal", added.wal, mine.wal, "bytes", NEAR)
    yield _line("worker_cpu", added.worker_seconds, mine.worker, "s", NEAR)
    yield _line("postgres_cpu", added.server_seconds, mine.server, "s", NEAR)
    most = (WORKERS + 1) * STORE_CONNECTIONS  # those of the killed one may still be there
    yield _line("postgres_connections", day.connections, most, "", 1.0)
    held = town.most * MEASURED.connection_bytes
    yield _line("memory", day.memory, held, "bytes", NEAR)
    filled = day.filled
    kept = MEASURED.turn_bytes + 2 * load.message_bytes
    yield _line("session_bytes", filled.session_bytes, MEASURED.session_bytes, "bytes", EXACT)
    yield _line("turn_bytes", filled.turn_bytes, kept, "bytes", EXACT)


class OfDay(NamedTuple):
    """What was predicted for the turns and the visits that there were."""

    events: float
    bells: float
    round_trips: float
    bytes: float
    wal: float
    worker: float
    """Seconds of processor."""
    server: float


def of_day(day: Day) -> OfDay:
    """From the costs of one turn, one visit and one sweep, and of a bell for each who hears it."""
    one, town, bells = MEASURED, day.town, day.added.bells
    turns, visits = town.turns, town.visits + town.again
    text = 2 * town.load.message_bytes
    return OfDay(
        turns * one.turn_events + visits * one.visit_events,
        turns * one.turn_commits + visits * one.visit_commits,
        turns * one.turn_round_trips
        + visits * one.visit_round_trips
        + day.swept * one.swept_round_trips,
        town.visits * one.session_bytes + turns * (one.turn_bytes + text),
        turns * one.turn_wal + visits * one.visit_wal,
        (turns * one.turn_ms + visits * one.visit_ms + WORKERS * bells * one.bell_ms) / 1000,
        (turns * one.turn_server_ms + visits * one.visit_server_ms) / 1000,
    )


def _line(name: str, value: float, predicted: float, unit: str, most: float) -> Figure:
    return Figure(
        figure=f"scale.{name}",
        system="tertulia",
        medium="",
        value=value,
        unit=unit,
        ratio_to=PREDICTED,
        ratio=value / predicted,
        target=Target("ratio", "<=", most),
    )


def _alone(day: Day) -> Iterator[Figure]:
    """What is not predicted, and what may not be."""
    town = day.town
    waits = milliseconds(town.waits)
    for name, value, unit, target in (
        ("connected", town.most, "at most", None),
        ("visits", town.visits, "", None),
        ("came_back", town.again, "", None),
        ("answer.p50", waits["p50_ms"], "ms", None),
        ("answer.p99", waits["p99_ms"], "ms", None),
        ("answer.mean", statistics.mean(town.waits) * 1000, "ms", None),
        ("turn_events", day.filled.turn_events, "", None),
        ("swept", day.swept, "sessions", Target("value", ">=", DUE)),
        *((name, count, "", NOTHING) for name, count in day.faults.items()),
    ):
        yield Figure(
            figure=f"scale.{name}",
            system="tertulia",
            medium="",
            value=float(value),
            unit=unit,
            target=target,
            detail={"errors": dict(town.failed)} if name == "came_back" else {},
        )
