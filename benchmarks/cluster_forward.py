"""What a call of a client costs at a worker that has to hand it on to another one.

Two workers of one database, each a process. A client of a swarm has its seat at the first one.
`execute` is called there and at the second one, in turns, with a model that answers at once; the
times are taken where it is called. The difference of the medians is what the way between two
workers costs: over NATS, and over HTTP where there is none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from benchmarks.cluster_servers import (
    FAILURES,
    Engines,
    engines,
    failed,
    versions,
    workers,
)
from benchmarks.figures import Figure, Target
from benchmarks.measure import Bench
from benchmarks.workloads import milliseconds

NEAR = Target("value", "<=", 3.0)
BLOCK = 10
"""Calls at one worker, before it is the other one's turn."""
CLIENT = "client"
Times = dict[str, list[float]]


def measure(bench: Bench) -> Iterator[Figure]:
    """Every figure on one medium."""
    try:
        with engines(bench) as running:
            found = {
                "NATS": asyncio.run(_measured(bench, running, running.nats.url)),
                "HTTP": asyncio.run(_measured(bench, running, None)),
            }
    except FAILURES as error:
        yield failed("cluster.forward", bench, error)
        return
    for pipe, times in found.items():
        yield from _figures(bench, pipe, times)


async def _measured(bench: Bench, running: Engines, bus: str | None) -> Times:
    blocks = 3 if bench.plan.quick else 40
    bench.plan.report(f"forward · {'HTTP' if bus is None else 'NATS'}")
    times: Times = {"here": [], "forwarded": []}
    async with workers(2, running.database(), bus) as (seated, other):
        for _ in range(2):
            for worker in (seated, other):
                await worker.order("execute", client=CLIENT, times=BLOCK)
        for number in range(blocks):
            turn = [("here", seated), ("forwarded", other)]
            for name, worker in turn if number % 2 == 0 else turn[::-1]:
                times[name] += await worker.order("execute", client=CLIENT, times=BLOCK)
        answered = await other.order("counts")
    if answered["model"]:
        raise RuntimeError("the call was not handed on: the second worker answered it itself")
    return times


def _figures(bench: Bench, pipe: str, times: Times) -> Iterator[Figure]:
    system, medium, found = f"tertulia over {pipe}", bench.medium.name, versions()
    here, forwarded = (milliseconds(times[name]) for name in ("here", "forwarded"))
    yield Figure(
        figure="cluster.forward.more",
        system=system,
        medium=medium,
        value=forwarded["p50_ms"] - here["p50_ms"],
        unit="ms",
        target=NEAR,
        repetitions=len(times["here"]),
        versions=found,
        note="p50 of an execute that is handed on, less p50 of one that is not",
    )
    for name, taken in (("here", here), ("forwarded", forwarded)):
        yield Figure(
            figure=f"cluster.forward.{name}",
            system=system,
            medium=medium,
            value=taken["p50_ms"],
            unit="ms",
            repetitions=len(times[name]),
            detail=taken,
            versions=found,
        )
