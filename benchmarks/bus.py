"""The bus: events a second to ten listeners in one process, beside ten bare queues.

Events of one client, all of which every listener wants. A listener counts and does nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from benchmarks.figures import Figure, Target
from benchmarks.measure import Bench
from benchmarks.systems import Named

LOAD = "benchmarks.bus_load"
PUBLISHED = Named(
    name="tertulia, sync listeners",
    where=f"{LOAD}:Published",
    kind="ours",
    note="published at a commit, as the runtime does",
)
PUBLISHED_ASYNC = Named(
    name="tertulia, async listeners",
    where=f"{LOAD}:PublishedAsync",
    kind="ours",
    note="published at a commit, as the runtime does",
)
EMITTED = Named(
    name="tertulia, emit, sync listeners",
    where=f"{LOAD}:Emitted",
    kind="ours",
    note="a user's mapping, checked and copied",
)
EMITTED_ASYNC = Named(
    name="tertulia, emit, async listeners",
    where=f"{LOAD}:EmittedAsync",
    kind="ours",
    note="a user's mapping, checked and copied",
)
QUEUES = Named(
    name="limit: bare queues",
    where=f"{LOAD}:BareQueues",
    kind="limit",
    note="one asyncio.Queue and one task a listener",
)
OURS = [PUBLISHED, PUBLISHED_ASYNC, EMITTED, EMITTED_ASYNC]
UNIT = "events/s"
ENOUGH = Target("value", ">=", 50_000)


def measure(bench: Bench) -> Iterator[Figure]:
    """Every figure of the bus; nothing is stored, so there is no medium."""
    bench = replace(bench, medium=replace(bench.medium, name=""))
    options = {"events": 10_000 if bench.plan.quick else 50_000, "rounds": 5}
    found = bench.samples("bus", "bus", [[*OURS, QUEUES]], lambda _: options)
    for mine in OURS:
        yield bench.compared("bus.events", found, QUEUES, UNIT, ENOUGH, mine)
    yield from bench.others("bus.events", found, [[QUEUES]], UNIT)
    for mine in OURS:
        if found.error(mine.name) is None:
            lost = {"value": found.median(mine.name, "lost"), "target": Target("value", "==", 0)}
            yield bench.figure("bus.lost", mine.name, found, **lost)
