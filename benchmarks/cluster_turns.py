"""What a turn costs where a second worker serves the same database, and what two workers carry.

Three groups of workers on three databases of one PostgreSQL: one worker alone, two that ring each
other by NOTIFY, and two that do by NATS. They get traffic in turns: sessions, each at one worker,
over HTTP, at a steady pace below what the computer can do, with a model that answers at once. The
processor is that of the workers, from `/proc`; PostgreSQL's is beside it.

`cluster.turn.cpu` gives each worker as many turns a second, and compares two of one database with
two that run at the same moment and are each alone with a database: on a computer with few cores
they also are in each other's way, and that is not what a cluster costs. `.beside_one` compares the
two with one worker that has the computer for itself. With `.same_traffic` the two share what the
one had. A worker with less to do does less at each
awakening, so a turn costs it more, whoever else is there: `.half_traffic` is the one worker with
half of its turns.

Round trips are counted in the workers, at the driver: what a turn waits for, one turn at a time,
so that it is a whole number; `.notify` are the bells beside it, for which no turn waits, and of
which those of turns at one moment are one. A worker's heartbeats, ten or fewer a second, belong to
no turn.

`cluster.carry` lets each worker run so many turns at once, with a model that takes 200 ms.
"""

from __future__ import annotations

import asyncio
import random
import statistics
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from time import monotonic
from typing import Any

from benchmarks.cluster_servers import (
    FAILURES,
    Client,
    Engines,
    Worker,
    cpu,
    engines,
    failed,
    family,
    versions,
    workers,
)
from benchmarks.figures import Figure, Target
from benchmarks.measure import Bench

SESSIONS = 40
RATE = 50.0
"""Turns a second of one worker."""
MAX_TURNS = 10
"""That run at once in one worker."""
SLOW = 0.2
CARRYING = 3
"""Rounds in which it is measured how much they carry."""
SETTLED = 0.02
"""Seconds after which the bells of a turn have rung."""
ONE, TWO, BY_NATS = "one worker", "two workers", "two workers and NATS"
APART = "two workers, each alone with a database"
RATES = {ONE: (RATE / 2, RATE), TWO: (RATE, 2 * RATE), BY_NATS: (2 * RATE,), APART: (2 * RATE,)}
CHEAP, EQUAL = Target("ratio", "<=", 1.15), Target("ratio", "==", 1)
TWICE = Target("ratio", ">=", 1.9)


Samples = tuple[str, list[float]]
"""Who was measured, and what in each round."""


class Group:
    """Workers of one database, and connections of clients, each of which has a session."""

    def __init__(self, name: str, working: list[Worker], clients: list[Client]) -> None:
        self.name, self.workers, self._clients = name, working, clients
        self.cpu: dict[float, list[float]] = {}
        """Milliseconds of processor a turn, by the turns a second of all of its workers."""
        self.server: dict[float, list[float]] = {}
        """The same, of PostgreSQL."""
        self.carried: list[float] = []

    async def begin(self) -> None:
        """One turn of each session, which is not measured."""
        for number, client in enumerate(self._clients):
            await client.post("/v1/sessions", {"id": f"s{number}"})
            await client.run(f"s{number}", "hello")

    async def alone(self, turns: int) -> dict[str, float]:
        """What the database was asked for in a turn, one turn at a time: the median."""
        found: dict[str, list[float]] = {"work": [], "notify": []}
        for number in range(turns):
            which = number % len(self._clients)
            before = await self._counts()
            await self._clients[which].run(f"s{which}", f"{number}: where is my order?")
            await asyncio.sleep(SETTLED)
            after = await self._counts()
            for kind, counted in found.items():
                counted.append(after[kind] - before[kind])
        return {kind: statistics.median(counted) for kind, counted in found.items()}

    async def steadily(self, rate: float, seconds: float, server: Callable[[], float]) -> None:
        """Turns at a pace; keeps the milliseconds of processor of each."""
        until = monotonic() + seconds
        before, server_before = cpu(self.pids), server()
        done = await asyncio.gather(
            *(self._paced(number, rate, until) for number in range(len(self._clients)))
        )
        turns = sum(done)
        self.cpu.setdefault(rate, []).append((cpu(self.pids) - before) * 1000 / turns)
        self.server.setdefault(rate, []).append((server() - server_before) * 1000 / turns)

    async def carry(self, seconds: float) -> None:
        """As many slow turns as it carries; keeps how many a second."""
        began = monotonic()
        done = await asyncio.gather(
            *(self._slowly(number, began + seconds) for number in range(len(self._clients)))
        )
        self.carried.append(sum(done) / seconds)

    async def _paced(self, number: int, rate: float, until: float) -> int:
        pause, done = len(self._clients) / rate, 0
        due = monotonic() + random.uniform(0, pause)
        while due < until:
            await asyncio.sleep(max(0.0, due - monotonic()))
            await self._clients[number].run(f"s{number}", "where is my order?")
            done += 1
            due += pause
        return done

    async def _slowly(self, number: int, until: float) -> int:
        """How many turns ended in time."""
        done = 0
        while monotonic() < until:
            await self._clients[number].run(f"s{number}", f"slow {SLOW}")
            done += monotonic() <= until
        return done

    @property
    def pids(self) -> list[int]:
        """Its processes."""
        return [worker.pid for worker in self.workers]

    async def _counts(self) -> Counter[str]:
        found: Counter[str] = Counter()
        for worker in self.workers:
            found.update(await worker.order("counts"))
        return found


def measure(bench: Bench) -> Iterator[Figure]:
    """Every figure on one medium."""
    try:
        with engines(bench) as running:
            groups, alone = asyncio.run(_measured(bench, running))
    except FAILURES as error:
        yield failed("cluster.turn", bench, error)
        return
    figures = Figures(bench, groups)
    yield from figures.processor()
    yield from figures.round_trips(alone)
    yield from figures.carried()


async def _measured(
    bench: Bench, running: Engines
) -> tuple[dict[str, Group], dict[str, dict[str, float]]]:
    rounds, seconds = (1, 0.5) if bench.plan.quick else (2 * max(3, bench.plan.repetitions), 1.5)
    async with AsyncExitStack() as stack:
        groups = [
            await stack.enter_async_context(_group(running, *each))
            for each in ((ONE, 1, False), (TWO, 2, False), (BY_NATS, 2, True), (APART, 2, False))
        ]
        alone = {group.name: await group.alone(2 * SESSIONS) for group in groups}
        server = running.postgres.pid
        for number in range(rounds):
            for group in groups if number % 2 == 0 else groups[::-1]:
                bench.plan.report(f"turns · {number + 1}/{rounds} · {group.name}")
                for rate in RATES[group.name]:
                    await group.steadily(rate, seconds, lambda: cpu(family(server)))
                if group.name in (ONE, TWO) and number < CARRYING:
                    await group.carry(2 * seconds)
    return {group.name: group for group in groups}, alone


@asynccontextmanager
async def _group(running: Engines, name: str, many: int, with_nats: bool) -> AsyncGenerator[Group]:
    bus = running.nats.url if with_nats else None
    async with AsyncExitStack() as stack:
        parts = [1] * many if name == APART else [many]
        working = [
            worker
            for part in parts
            for worker in await stack.enter_async_context(
                workers(part, running.database(), bus, MAX_TURNS)
            )
        ]
        clients = [
            await stack.enter_async_context(Client(working[number % many].port))
            for number in range(SESSIONS)
        ]
        group = Group(name, working, clients)
        await group.begin()
        yield group


class Figures:
    """What was measured, as figures."""

    def __init__(self, bench: Bench, groups: dict[str, Group]) -> None:
        self._bench, self._groups, self._versions = bench, groups, versions()

    def processor(self) -> Iterator[Figure]:
        """Of workers, and of the server, for a turn."""
        one, two, nats, apart = (self._groups[name].cpu for name in (ONE, TWO, BY_NATS, APART))
        full, name, unit = 2 * RATE, "cluster.turn.cpu", "ms a turn"
        control, base = (APART, apart[full]), (ONE, one[RATE])
        yield self._compared(name, unit, (TWO, two[full]), control, CHEAP)
        yield self._compared(name, unit, (BY_NATS, nats[full]), control, CHEAP)
        yield self._compared(name, unit, control)
        yield self._compared(f"{name}.nats", unit, (BY_NATS, nats[full]), (TWO, two[full]))
        for system, values in ((TWO, two[full]), (BY_NATS, nats[full]), control):
            yield self._compared(f"{name}.beside_one", unit, (system, values), base)
        yield self._compared(f"{name}.beside_one", unit, base)
        yield self._compared(f"{name}.same_traffic", unit, (TWO, two[RATE]), base)
        yield self._compared(f"{name}.half_traffic", unit, (ONE, one[RATE / 2]), base)
        control = (APART, self._groups[APART].server[full])
        for system in (TWO, BY_NATS):
            mine = (system, self._groups[system].server[full])
            yield self._compared("cluster.turn.postgres_cpu", unit, mine, control)
        yield self._compared("cluster.turn.postgres_cpu", unit, control)

    def round_trips(self, alone: dict[str, dict[str, float]]) -> Iterator[Figure]:
        """To the database, of a turn."""
        one = (ONE, [alone[ONE]["work"]])
        for system in (TWO, BY_NATS):
            mine = (system, [alone[system]["work"]])
            yield self._compared("cluster.turn.round_trips", "a turn", mine, one, EQUAL)
        yield self._compared("cluster.turn.round_trips", "a turn", one)
        for system in (TWO, BY_NATS):
            bells = (system, [alone[system]["notify"]])
            yield self._compared("cluster.turn.round_trips.notify", "a turn", bells)

    def carried(self) -> Iterator[Figure]:
        """Turns a second, with a limit of turns per worker."""
        one, two = ((name, self._groups[name].carried) for name in (ONE, TWO))
        yield self._compared("cluster.carry", "turns/s", two, one, TWICE)
        yield self._compared("cluster.carry", "turns/s", one)

    def _compared(
        self,
        name: str,
        unit: str,
        mine: Samples,
        other: Samples | None = None,
        target: Target | None = None,
    ) -> Figure:
        """A median, and the median of the ratios within each round."""
        system, values = mine
        more: dict[str, Any] = {}
        if other is not None:
            pairs = zip(values, other[1], strict=True)
            more = {"ratio_to": other[0], "ratio": statistics.median(a / b for a, b in pairs)}
        return Figure(
            figure=name,
            system=system,
            medium=self._bench.medium.name,
            value=statistics.median(values),
            unit=unit,
            target=target,
            repetitions=len(values),
            detail={"values": [round(value, 3) for value in values]},
            versions=self._versions,
            **more,
        )
