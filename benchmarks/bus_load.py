"""Ten listeners of one client, and events for all of them; how many a second are handed out."""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from abc import abstractmethod
from typing import Any, cast

from benchmarks.child import Opened
from benchmarks.systems import Measured, distribution_versions
from benchmarks.workloads import Options, Result
from tertulia.bus import BusEvent, LocalBus

LISTENERS = 10
COMMIT = 100
"""Events between two turns of the loop, where the producer would not give way by itself."""
CLIENT = "client-1"
TEXT = "Where is my order? It was to be here yesterday."
CONTEXT = {"swarm_name": "shop", "agent_name": "triage"}

clock = time.perf_counter


class Listened(Measured):
    """Ten listeners that count what they get."""

    lost = 0
    seen = 0

    @abstractmethod
    async def open(self) -> None:
        """Register the listeners."""

    @abstractmethod
    async def send(self, events: int) -> None:
        """Make so many events and give them to all listeners; return when they have them."""

    @abstractmethod
    async def close(self) -> None:
        """End all tasks."""

    def versions(self) -> dict[str, str]:
        return distribution_versions("msgspec")

    def count(self, _: Any) -> None:
        self.seen += 1

    async def count_later(self, _: Any) -> None:
        self.seen += 1


class OnBus(Listened):
    """Ours: half of the patterns with a star at the end, half for everything."""

    is_async = False

    async def open(self) -> None:
        self.bus = LocalBus()
        fn = self.count_later if self.is_async else self.count
        patterns = ["session.*", "*"] * (LISTENERS // 2)
        self.subscriptions = [self.bus.listen(CLIENT, pattern, fn) for pattern in patterns]

    async def close(self) -> None:
        self.lost = sum(each.lost for each in self.subscriptions)
        await self.bus.aclose()


class Published(OnBus):
    """Events that the runtime makes itself."""

    async def send(self, events: int) -> None:
        for number in range(events):
            self.bus.publish(made(number))
            if number % COMMIT == 0:
                await asyncio.sleep(0)
        await self.bus.drain(60)


class PublishedAsync(Published):
    """The same for async listeners."""

    is_async = True


class Emitted(OnBus):
    """Events that a user writes."""

    async def send(self, events: int) -> None:
        for _ in range(events):
            await self.bus.emit(
                CLIENT,
                {
                    "type": "execute",
                    "source": "session-bus",
                    "input": {"message": TEXT},
                    "context": CONTEXT,
                },
            )
        await self.bus.drain(60)


class EmittedAsync(Emitted):
    """The same for async listeners."""

    is_async = True


class BareQueues(Listened):
    """A queue and a task for each listener, and the events as ours."""

    async def open(self) -> None:
        self.queues = [asyncio.Queue[BusEvent](1000) for _ in range(LISTENERS)]
        self.tasks = [asyncio.create_task(self.work(queue)) for queue in self.queues]

    async def work(self, queue: asyncio.Queue[BusEvent]) -> None:
        while True:
            self.count(await queue.get())
            queue.task_done()

    async def send(self, events: int) -> None:
        for number in range(events):
            event = made(number)
            for queue in self.queues:
                queue.put_nowait(event)
            if number % COMMIT == 0:
                await asyncio.sleep(0)
        for queue in self.queues:
            await queue.join()

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.wait(self.tasks)


def made(number: int) -> BusEvent:
    """An event as the runtime makes it."""
    return BusEvent(
        type="execute",
        source="session-bus",
        input={"message": TEXT},
        context=CONTEXT,
        client_id=CLIENT,
        seq=number,
    )


async def events(systems: Opened, options: Options) -> list[Result]:
    """Events a second of each, in turns; the median of the rounds, after one that warms up."""
    listened = [cast("Listened", system) for system, _ in systems]
    rates: list[list[float]] = [[] for _ in listened]
    for each in listened:
        await each.open()
        await each.send(1000)
    for _ in range(options["rounds"]):
        for each, mine in zip(listened, rates, strict=True):
            mine.append(await timed(each, options["events"]))
    for each in listened:
        await each.close()
    return [
        {"value": statistics.median(mine), "rates": mine, "lost": each.lost}
        for each, mine in zip(listened, rates, strict=True)
    ]


async def timed(each: Listened, count: int) -> float:
    """Events a second of one round. Every one must have come, but for those that were dropped."""
    gc.collect()
    each.seen = 0
    started = clock()
    await each.send(count)
    rate = count / (clock() - started)
    if each.seen != count * LISTENERS:
        raise RuntimeError(f"{each.seen} of {count * LISTENERS} came")
    return rate
