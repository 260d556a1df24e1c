"""Reading the newest 20 of 1,000 messages, and a fork of 1,000, beside every peer.

The flatness of both is measured in `flat`; this file says only whether somebody does it faster.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.figures import Figure, Target
from benchmarks.measure import Bench, Group
from benchmarks.systems import OURS, PEERS, RAW_SQLITE, Named
from benchmarks.workloads import Options

LAST = "reads.history20"
FORK = "reads.fork"
FASTER = Target("ratio", "<", 1)


def measure(bench: Bench) -> Iterator[Figure]:
    """Both figures on one medium."""
    groups = bench.plan.groups([OURS], [RAW_SQLITE])
    yield from _one(bench, LAST, "last", groups, 200)
    yield from _one(bench, FORK, "fork", bench.plan.groups([OURS]), 3 if bench.plan.quick else 10)


def _one(
    bench: Bench, name: str, workload: str, groups: Sequence[Group], repeat: int
) -> Iterator[Figure]:
    def options(_: Named) -> Options:
        return {"messages": 1000, "limit": 20, "repeat": repeat, "time_limit": 5}

    found = bench.samples(name, workload, groups, options)
    if bench.plan.peers:
        yield bench.compared(name, found, found.best(PEERS, highest=False), "ms", FASTER)
    else:
        yield bench.alone(name, OURS.name, found, "ms")
    yield from bench.others(name, found, groups, "ms")
