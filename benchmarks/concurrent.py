"""200 sessions at once: turns a second, the wait of the unlucky, and that nothing is lost.

Promises 1 and 2 under load: everything acknowledged is there after reopening, nobody is told
that the database is locked, and a checkpoint does not make anybody wait long.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from benchmarks.append import comparable, who_counts
from benchmarks.figures import Figure, Target
from benchmarks.measure import Bench, Samples
from benchmarks.systems import BARE_WRITER, OURS, RAW_SQLITE, Named
from benchmarks.workloads import Options

NAME = "concurrent.turns"
UNIT = "turns/s"


def measure(bench: Bench) -> Iterator[Figure]:
    """Every figure of 200 sessions on one medium."""
    groups = bench.plan.groups([OURS, BARE_WRITER], [RAW_SQLITE])
    found = bench.samples("200 sessions", "concurrent", groups, lambda n: options(bench, n))
    yield bench.compared(NAME, found, BARE_WRITER, UNIT, Target("ratio", ">=", 0.2))
    if bench.plan.peers:
        fastest = found.best(comparable(bench), highest=True)
        target = Target("ratio", ">=", 3)
        ahead = bench.compared(f"{NAME}.fastest_peer", found, fastest, UNIT, target)
        yield replace(ahead, note=who_counts(bench))
    yield from waits(bench, found)
    yield from bench.others(NAME, found, groups, UNIT)


def waits(bench: Bench, found: Samples) -> Iterator[Figure]:
    """How long our turns waited, and what went wrong."""
    if found.error(OURS.name) is not None:
        return
    for key, target in (
        ("p50_ms", None),
        ("p99_ms", Target("value", "<", 25)),
        ("max_ms", None),
    ):
        value = found.median(OURS.name, key)
        name = f"concurrent.{key.removesuffix('_ms')}"
        yield bench.figure(name, OURS.name, found, value=value, unit="ms", target=target)
    for key in ("lost_messages", "errors"):
        nothing = Target("value", "==", 0)
        total = float(sum(found.each(OURS.name, key)))
        yield bench.figure(f"concurrent.{key}", OURS.name, found, value=total, target=nothing)


def options(bench: Bench, named: Named) -> Options:
    """200 sessions of 50 turns; we and the bare writer take turns in one process."""
    turns = 10 if bench.plan.quick else 50
    return {
        "sessions": 200,
        "turns": min(turns, named.concurrent_turn_limit or turns),
        "rounds": 2 if named is BARE_WRITER else 1,
        "time_limit": 5 if bench.plan.quick else 20,
    }
