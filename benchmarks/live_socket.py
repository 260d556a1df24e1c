"""The WebSocket server: echoes through a session of one node, idle sessions, churn, interrupts.

Each server is a process of its own, with the same loop and the same protocols; the client is
another process. The bare echo is Starlette on uvicorn and hands back bytes that it never reads.
All servers of a repetition run at once and are loaded in turns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from benchmarks.figures import Figure, Target
from benchmarks.measure import Bench, Samples
from benchmarks.systems import Named

SERVERS = "benchmarks.live_servers"
OURS = Named(name="tertulia", where=f"{SERVERS}:Tertulia", kind="ours")
BARE = Named(
    name="limit: bare Starlette",
    where=f"{SERVERS}:Starlette",
    kind="limit",
    note="uvicorn, websockets-sansio, uvloop",
)
QUICKEST = Named(
    name="limit: picows",
    where=f"{SERVERS}:Picows",
    kind="limit",
    note="no framework: what the client can keep up with",
)
CREW = Named(
    name="smallestai AtomsCrewApp",
    where=f"{SERVERS}:SmallestCrew",
    kind="peer",
    note="one node, on uvloop",
)
CONNECTIONS = (1, 50, 500)
IDLE = 2_000
SPEAKING = 200
NOTHING = Target("value", "==", 0)


def measure(bench: Bench) -> Iterator[Figure]:
    """Every figure of the server on one medium."""
    peers = [CREW] if bench.plan.peers else []
    for connections in CONNECTIONS:
        yield from echoes(bench, connections, peers)
    yield from idle(bench, peers)
    yield from churn(bench, peers)
    yield from interrupts(bench, peers)


def echoes(bench: Bench, connections: int, peers: list[Named]) -> Iterator[Figure]:
    """Closed loop: one message under way on each connection."""
    name = f"socket.echo.{connections}"
    small = bench.plan.quick
    options = {"connections": connections, "rounds": 2 if small else 7}
    options |= {"seconds": 0.5 if small else 0.7}
    group = [OURS, BARE, *peers, QUICKEST]
    found = bench.samples(name, "live_echo", [group], lambda _: options)
    yield bench.compared(name, found, BARE, "messages/s", Target("ratio", ">=", 0.6), OURS)
    if peers:
        yield bench.compared(name, found, CREW, "messages/s", Target("ratio", ">", 1), OURS)
    for named in (BARE, *peers, QUICKEST):
        yield bench.alone(name, named.name, found, "messages/s", named.note)
    for named in group:
        if found.error(named.name) is None:
            target = Target("value", "<", 40) if (named, connections) == (OURS, 500) else None
            value = found.median(named.name, "p99_ms")
            more: dict[str, Any] = {"value": value, "unit": "ms", "target": target}
            yield bench.figure(f"{name}.p99", named.name, found, **more)
            yield processor(bench, f"{name}.processor", found, named)


def processor(bench: Bench, name: str, found: Samples, named: Named) -> Figure:
    """What a message costs the server; a busy computer changes that less than the rate."""
    busy = round(found.median(named.name, "client_busy"), 2)
    more: dict[str, Any] = {"value": found.median(named.name, "cpu_us"), "unit": "µs a message"}
    figure = bench.figure(name, named.name, found, **more, detail={"client_busy": busy})
    if named is BARE or found.error(BARE.name) is not None:
        return figure
    ratio = found.ratio(named.name, BARE.name, "cpu_us")
    return replace(figure, ratio_to=BARE.name, ratio=ratio)


def idle(bench: Bench, peers: list[Named]) -> Iterator[Figure]:
    """The memory of a session that says nothing, beside that of a bare connection."""
    options = {"connections": 200 if bench.plan.quick else IDLE, "settle": 2}
    found = bench.samples("idle", "live_idle", [[OURS, BARE, *peers]], lambda _: options)
    name = "socket.idle"
    for named in (OURS, BARE, *peers):
        yield bench.alone(name, named.name, found, "KB a connection", named.note)
    for named in (OURS, *peers):
        error = found.error(named.name) or found.error(BARE.name)
        figure = bench.figure(f"{name}.over_bare", named.name, found)
        if error is not None:
            yield replace(figure, error=error)
            continue
        value = found.median(named.name, "value") - found.median(BARE.name, "value")
        target = Target("value", "<=", 30) if named is OURS else None
        yield replace(figure, value=value, unit="KB a connection", target=target)


def churn(bench: Bench, peers: list[Named]) -> Iterator[Figure]:
    """What many connections leave behind, each tenth of them lost without a goodbye."""
    small = bench.plan.quick
    options = {"connects": 500 if small else 10_000, "warm_up": 100 if small else 3_000}
    options |= {"lose_each": 10}
    found = bench.samples("churn", "live_churn", [[OURS, BARE, *peers]], lambda _: options)
    for named in (OURS, BARE, *peers):
        ours = named is OURS
        target = Target("value", "<=", 5) if ours and not small else None
        note = "without the page cache of SQLite, which has a bound of its own"
        alone = bench.alone("socket.churn.growth", named.name, found, "% of memory", note)
        yield replace(alone, target=target)
        if found.error(named.name) is None:
            value = found.median(named.name, "with_page_cache")
            more: dict[str, Any] = {"value": value, "unit": "% of memory"}
            yield bench.figure("socket.churn.growth.with_page_cache", named.name, found, **more)
            for key in ("left_sessions", "left_tasks", "left_descriptors", "left_threads"):
                value = float(max(found.each(named.name, key)))
                more = {"value": value, "target": NOTHING if ours else None}
                yield bench.figure(f"socket.churn.{key}", named.name, found, **more)
            value = found.median(named.name, "per_second")
            more = {"value": value, "unit": "connects/s"}
            yield bench.figure("socket.churn", named.name, found, **more)


def interrupts(bench: Bench, peers: list[Named]) -> Iterator[Figure]:
    """From the client's interrupt to the last chunk it gets, while 200 sessions speak."""
    small = bench.plan.quick
    options = {"connections": SPEAKING, "interrupts": 100 if small else 600}
    options |= {"apart": 0.01, "quiet": 0.2, "settle": 0.5 if small else 2}
    found = bench.samples("interrupt", "live_interrupts", [[OURS, *peers]], lambda _: options)
    for named in (OURS, *peers):
        if found.error(named.name) is not None:
            yield bench.figure("socket.interrupt", named.name, found)
            continue
        for key, shown in INTERRUPTS.items():
            value = found.median(named.name, key)
            unit = "words/s" if key == "words_per_second" else "ms"
            target = Target("value", "<", 50) if named is OURS and key in STOPPED else None
            more: dict[str, Any] = {"value": value, "unit": unit, "target": target}
            yield bench.figure(f"socket.interrupt.{shown}", named.name, found, **more)


INTERRUPTS = {
    "p50_ms": "last_chunk.p50",
    "p99_ms": "last_chunk.p99",
    "max_ms": "last_chunk.max",
    "end_p99_ms": "end.p99",
    "end_max_ms": "end.max",
    "together_max_ms": "all_at_once.last_chunk.max",
    "together_end_max_ms": "all_at_once.end.max",
    "words_per_second": "words",
}
"""One session after the other is interrupted, and at last all of them in one moment."""
STOPPED = ("p99_ms", "max_ms")
