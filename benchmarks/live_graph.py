"""The event graph: events a second through root, A, B and sink, and the time of one event alone.

Beside it are a bare queue and task for each of the four, and the graphs of the peers. All are in
one process and take turns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from benchmarks.figures import Figure, Target
from benchmarks.live_chains import BOUND
from benchmarks.measure import Bench
from benchmarks.systems import Named

CHAINS = "benchmarks.live_chains"
OURS = Named(name="tertulia", where="benchmarks.live_ours:Graph", kind="ours")
QUEUES = Named(
    name="limit: bare queues",
    where=f"{CHAINS}:BareQueues",
    kind="limit",
    note="one asyncio.Queue and one task a node",
)
BOUNDED = Named(
    name="limit: bare queues with a bound",
    where=f"{CHAINS}:BoundedQueues",
    kind="limit",
    note=f"at most {BOUND} events in each",
)
CREW = Named(
    name="smallestai crew",
    where="benchmarks.peers.smallest_crew:Crew",
    kind="peer",
    note="its graph alone, nothing encoded",
)
PIPECAT = Named(
    name="pipecat frame processors",
    where="benchmarks.peers.pipecat_chain:Processors",
    kind="peer",
    note="queue_frame on the first",
)
UNIT = "events/s"


def measure(bench: Bench) -> Iterator[Figure]:
    """Every figure of the graph; nothing is stored, so there is no medium."""
    bench = replace(bench, medium=replace(bench.medium, name=""))
    peers = [CREW, PIPECAT] if bench.plan.peers else []
    group = [OURS, QUEUES, BOUNDED, *peers]
    small = bench.plan.quick
    options = {"events": 20_000 if small else 100_000, "made_before": 5_000 if small else 10_000}
    options |= {"alone": 200 if small else 1_000, "rounds": 3}
    found = bench.samples("graph", "live_graph", [group], lambda _: options)
    for other, least in ((QUEUES, 0.7), (CREW, 2.5), (PIPECAT, 10)):
        if other in group:
            target = Target("ratio", ">=", least)
            yield bench.compared("graph.events", found, other, UNIT, target, OURS)
    yield bench.compared("graph.events", found, BOUNDED, UNIT, None, OURS)
    yield from bench.others("graph.events", found, [[each for each in group if each != OURS]], UNIT)
    for named in group:
        if found.error(named.name) is None:
            value = found.median(named.name, "made_before")
            more = {"value": value, "unit": UNIT, "note": "events that were made before"}
            yield bench.figure("graph.events.made_before", named.name, found, **more)
            value = found.median(named.name, "p99_ms")
            target = Target("value", "<", 1) if named is OURS else None
            note = "one event, through an idle graph"
            more = {"value": value, "unit": "ms", "target": target, "note": note}
            yield bench.figure("graph.one_event.p99", named.name, found, **more)
