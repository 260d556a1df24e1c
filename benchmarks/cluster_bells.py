"""How soon a follower at one worker sees what another one wrote, by NATS and by NOTIFY.

One worker adds messages to 20 sessions that another one follows, one at a time. The time is from
the moment when the writer was told that a message is durable to the moment when a follower had
it; it is less than zero where the follower was first. A bell that is lost costs up to a second.
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

SESSIONS, MESSAGES, PAUSE = 20, 400, 0.01
CATCHING_UP = 2.0
NOTHING = Target("value", "==", 0)


def measure(bench: Bench) -> Iterator[Figure]:
    """Every figure on one medium."""
    try:
        with engines(bench) as running:
            found = {
                "NATS": asyncio.run(_measured(bench, running, running.nats.url)),
                "NOTIFY": asyncio.run(_measured(bench, running, None)),
            }
    except FAILURES as error:
        yield failed("cluster.bell", bench, error)
        return
    for carrier, taken in found.items():
        yield from _figures(bench, carrier, taken)


async def _measured(bench: Bench, running: Engines, bus: str | None) -> list[float | None]:
    """The seconds after which each message was seen; None where it was not."""
    many = 20 if bench.plan.quick else MESSAGES
    bench.plan.report(f"bells · {'NOTIFY' if bus is None else 'NATS'}")
    sessions = [f"s{number}" for number in range(SESSIONS)]
    async with workers(2, running.database(), bus) as (writer, watcher):
        for name in sessions:
            await writer.order("commit", sessions=[name], many=1, pause=0.0)
        await watcher.order("watch", sessions=sessions)
        written = await writer.order("commit", sessions=sessions, many=many, pause=PAUSE)
        await asyncio.sleep(CATCHING_UP)
        seen = await watcher.order("sightings")
    return [seen[text] - at if text in seen else None for text, at in written.items()]


def _figures(bench: Bench, carrier: str, taken: list[float | None]) -> Iterator[Figure]:
    seen = [each for each in taken if each is not None]
    times = milliseconds(seen)
    for name, value, unit, target in (
        ("p50", times["p50_ms"], "ms", None),
        ("p99", times["p99_ms"], "ms", None),
        ("max", times["max_ms"], "ms", None),
        ("unseen", float(len(taken) - len(seen)), "", NOTHING),
    ):
        yield Figure(
            figure=f"cluster.bell.{name}",
            system=carrier,
            medium=bench.medium.name,
            value=value,
            unit=unit,
            target=target,
            repetitions=len(taken),
            versions=versions(),
        )
