"""Chains of four, root, A, B and sink, through which events go; and how they are timed.

Ours, the bare queues and the peers are in one process and take turns, because their ratio is the
promise. Each chain gets its events from one producer, that makes each event as it is put, as a
server does, and waits when the chain makes it wait. The same is measured with events that were
made before.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, cast

from benchmarks.child import Opened
from benchmarks.systems import Measured, distribution_versions
from benchmarks.workloads import Options, Result, milliseconds

HOPS = 4
TEXT = "Where is my order? It was to be here yesterday."
BOUND = 256
IDLE_TURNS = 10
"""How often others may run before the next event goes through a chain that must be idle."""

clock = time.perf_counter
Arrived = Callable[[], None]


class Chain(Measured):
    """Four nodes in a row, each with a queue and a task of its own."""

    distributions: tuple[str, ...] = ()

    @abstractmethod
    async def open(self, arrived: Arrived) -> None:
        """Start the nodes; the last one calls ``arrived`` for every event."""

    @abstractmethod
    def event(self) -> Any:
        """A new event of its own kind, with `TEXT`."""

    @abstractmethod
    async def put(self, event: Any) -> None:
        """Give an event to the first node."""

    @abstractmethod
    async def close(self) -> None:
        """End all tasks."""

    def versions(self) -> dict[str, str]:
        return distribution_versions(*self.distributions)


class BareQueues(Chain):
    """One `asyncio.Queue` and one task a node: what any such graph has to do."""

    bound = 0

    async def open(self, arrived: Arrived) -> None:
        self.queues: list[asyncio.Queue[object]] = [asyncio.Queue(self.bound) for _ in range(HOPS)]
        first, *rest = self.queues
        self.put_first = first.put
        pairs = zip(self.queues, rest, strict=False)
        self.tasks = [asyncio.create_task(_forward(mine, after)) for mine, after in pairs]
        self.tasks.append(asyncio.create_task(_count(rest[-1], arrived)))

    def event(self) -> Any:
        return {"text": TEXT}

    async def put(self, event: Any) -> None:
        await self.put_first(event)

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


class BoundedQueues(BareQueues):
    """The same with a bound, as everything of ours has one."""

    bound = BOUND


async def _forward(mine: asyncio.Queue[object], after: asyncio.Queue[object]) -> None:
    while True:
        await after.put(await mine.get())


async def _count(mine: asyncio.Queue[object], arrived: Arrived) -> None:
    while True:
        await mine.get()
        arrived()


class Timed:
    """One chain, what has arrived at its end, and the times it took."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self.rates: list[float] = []
        self.made_before: list[float] = []
        self.alone: list[float] = []
        self.missing = 0
        self.done: asyncio.Future[None]

    def arrived(self) -> None:
        self.missing -= 1
        if self.missing == 0:
            self.done.set_result(None)

    async def send(self, events: Iterable[Any], count: int) -> float:
        """The seconds until all of them were at the end."""
        gc.collect()
        self.missing, self.done = count, asyncio.get_running_loop().create_future()
        put = self.chain.put
        started = clock()
        for event in events:
            await put(event)
        await asyncio.wait_for(self.done, 120)
        return clock() - started

    async def send_one(self) -> float:
        """The seconds of one event, through the idle chain."""
        event = self.chain.event()
        for _ in range(IDLE_TURNS):
            await asyncio.sleep(0)
        self.missing, self.done = 1, asyncio.get_running_loop().create_future()
        started = clock()
        await self.chain.put(event)
        await self.done
        return clock() - started

    async def round(self, options: Options) -> None:
        """Many events as fast as they go, made meanwhile and before; then one at a time."""
        make, count = self.chain.event, options["events"]
        self.rates.append(count / await self.send((make() for _ in range(count)), count))
        before = options["made_before"]
        made = [make() for _ in range(before)]
        self.made_before.append(before / await self.send(made, before))
        self.alone += [await self.send_one() for _ in range(options["alone"])]

    def result(self) -> Result:
        return {
            "value": statistics.median(self.rates),
            "made_before": statistics.median(self.made_before),
            "turns": len(self.alone),
            **milliseconds(self.alone),
        }


async def events(systems: Opened, options: Options) -> list[Result]:
    """Events a second of each chain, and the time of one event alone."""
    timed = [Timed(cast("Chain", system)) for system, _ in systems]
    for each in timed:
        await each.chain.open(each.arrived)
        await each.send([each.chain.event() for _ in range(500)], 500)
    for number in range(options["rounds"]):
        for place in range(len(timed)):
            await timed[(number + place) % len(timed)].round(options)
    for each in timed:
        await each.chain.close()
    return [each.result() for each in timed]
