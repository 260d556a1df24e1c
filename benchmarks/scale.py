"""A day of traffic at 1:1000: what `docs/scale.md` computes, against what happens.

The database is filled with 100,000 sessions: copies, made in the server, of sessions that were
held through a worker, of two lengths, so that the bytes of a session and of a turn come apart.
Then a day passes in two minutes. Up to 1,000 clients are connected over WebSockets to two
workers, as many at each moment as the curve of a day says; each says something every 20 seconds
and leaves after a while for another. A tenth loses its connection instead of leaving, and comes
back at any worker. In the busiest hour one worker is killed, and another one comes a little later.
Sessions whose time is over are swept.

What is measured is compared with what `scale_model` computes for this load from the costs that
`docs/scale.md` uses; a ratio is measured / predicted. Only the number of turns follows from the
clients alone; what they cost is predicted for the turns that there were, so that one wrong
prediction does not hide another. Bytes and processor depend on the computer and on who else uses
it; rows, commits, bells and connections do not.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from time import monotonic

from benchmarks import cluster_takeover, scale_figures
from benchmarks.cluster_servers import (
    FAILURES,
    Client,
    Engines,
    Worker,
    cpu,
    engines,
    failed,
    family,
    workers,
)
from benchmarks.figures import Figure
from benchmarks.live_settings import resident
from benchmarks.measure import Bench
from benchmarks.scale_figures import Day, Seen
from benchmarks.scale_filling import DUE, fill, settled
from benchmarks.scale_model import Load
from benchmarks.scale_town import BUSIEST, Town
from tertulia.stores.postgres import driver

LOAD = Load(
    sessions=100_000,
    messages=2,
    message_bytes=500,
    connections=1_000,
    turn_every=20.0,
    turn_seconds=0.3,
    stays=60.0,
)
SMALL = replace(LOAD, sessions=1_000, connections=20, turn_every=1.0, stays=2.0)
DAY = 120.0
"""Seconds."""
AWAY = 0.025
"""The part of the day until another worker takes its place."""
SWEEP_SECONDS = 10.0
CONNECTIONS = """
SELECT count(*)::float8 FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
    AND backend_type = 'client backend'
"""
DUE_LEFT = """
SELECT count(*)::float8 FROM tertulia.sessions
WHERE due_at < extract(epoch FROM now()) * 1000000 AND status <> 'deleted'
"""
FAULTS = {
    "two_ends": cluster_takeover.FAULTS["two_ends"],
    "open": "SELECT count(*) FROM tertulia.sessions WHERE holder IS NOT NULL",
}
SAID = ("slow 0.2 " + "Where is my order? " * 100)[: LOAD.message_bytes]


class City:
    """The workers, the database, and what all of them have done."""

    def __init__(self, running: Engines, address: str, db: driver.Connection) -> None:
        self.running, self._address, self._db = running, address, db
        self.working: list[Worker] = []
        self._gone: Counter[str] = Counter()
        """What workers had done that are no more."""
        self._stack = AsyncExitStack()
        self.connections = 0.0
        """To PostgreSQL, the most at one time."""
        self.resident = 0
        """Memory of all workers, the most at one time."""

    async def more(self, many: int) -> list[Worker]:
        """Start so many workers."""
        starting = workers(many, self._address, self.running.nats.url, None, SWEEP_SECONDS)
        started = await self._stack.enter_async_context(starting)
        self.working += started
        for worker in started:
            self._gone["microseconds"] -= round(cpu([worker.pid]) * 1e6)
        return started

    async def kill(self, worker: Worker) -> None:
        """``kill -9`` one; what it had done is kept."""
        self._gone.update(await self._done(worker))
        self.working.remove(worker)
        await worker.kill()

    async def seen(self) -> Seen:
        """What there is now."""
        done = Counter(self._gone)
        for worker in self.working:
            done.update(await self._done(worker))
        server = family(self.running.postgres.pid)
        now = await settled(self._db)
        asked, bells, spent = (done[name] for name in ("work", "bells", "microseconds"))
        return Seen(*now, asked, bells, spent / 1e6, cpu(server))

    async def look(self) -> None:
        """Note how many connections there are, until cancelled."""
        while True:
            [(found,)] = await self._db.fetch(CONNECTIONS)
            self.connections = max(self.connections, found)
            self.resident = max(self.resident, self.memory())
            await asyncio.sleep(1)

    def memory(self) -> int:
        """What all workers have now, in bytes."""
        return sum(resident(worker.pid) for worker in self.working)

    async def close(self) -> None:
        """End all workers."""
        await self._stack.aclose()

    async def _done(self, worker: Worker) -> Counter[str]:
        done = Counter(await worker.order("counts"))
        done["microseconds"] = round(cpu([worker.pid]) * 1e6)
        return done


def measure(bench: Bench) -> Iterator[Figure]:
    """Every figure on one medium."""
    try:
        with engines(bench) as running:
            day = asyncio.run(_simulated(bench, running))
    except FAILURES as error:
        yield failed("scale", bench, error)
        return
    yield from scale_figures.figures(bench, day)


async def _simulated(bench: Bench, running: Engines) -> Day:
    load, seconds = (SMALL, 4.0) if bench.plan.quick else (LOAD, DAY)
    address = running.database()
    db = await driver.connect(address)
    city = City(running, address, db)
    try:
        first, second = await city.more(2)
        bench.plan.report(f"scale · {load.sessions:,} sessions are made")
        async with Client(first.port) as client:
            filled = await fill(db, client, SAID, load.sessions)
        town = Town([first.port, second.port], load, SAID)
        before = await city.seen()
        empty = city.memory()
        bench.plan.report(f"scale · a day of {seconds:g} s, {load.connections:,} clients")
        looking = asyncio.ensure_future(city.look())
        try:
            await asyncio.gather(
                _busiest_hour(bench, city, town, first, seconds),
                *(town.live(number, monotonic(), seconds) for number in range(load.connections)),
            )
        finally:
            looking.cancel()
        bench.plan.report("scale · the rows are read")
        added = (await city.seen()).since(before)
        [(left,)] = await db.fetch(DUE_LEFT)
        faults = {name: (await db.fetch(FAULTS[name]))[0][0] for name in ("two_ends", "open")}
        memory = city.resident - empty
        return Day(town, seconds, filled, added, DUE - left, city.connections, memory, faults)
    finally:
        await city.close()
        await db.close()


async def _busiest_hour(
    bench: Bench, city: City, town: Town, dying: Worker, seconds: float
) -> None:
    """Kill a worker when most are there; another one comes a little later."""
    await asyncio.sleep(seconds * BUSIEST)
    bench.plan.report(f"scale · kill -9 of a worker; {town.connected:,} are connected")
    await city.kill(dying)
    town.ports.remove(dying.port)
    await asyncio.sleep(seconds * AWAY)
    [new] = await city.more(1)
    town.ports.append(new.port)
