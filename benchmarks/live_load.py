"""What the loading process does to the servers: echoes, idle sessions, connects, interrupts."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

from benchmarks.child import Opened, failure
from benchmarks.live_client import (
    CONNECTING,
    ECHO,
    Connection,
    Echoing,
    Listening,
    connect,
    connected,
)
from benchmarks.live_servers import Doing, Served, Server
from benchmarks.workloads import Options, Result, milliseconds

WARM_UP = 0.3
SETTLE_LIMIT = 30.0
COUNTED = ("sessions", "tasks", "descriptors", "threads")

clock = time.perf_counter


@asynccontextmanager
async def running(served: Served, doing: Doing, folder: Path) -> AsyncIterator[Server]:
    """One server, for a while."""
    server = await served.start(doing, folder)
    try:
        yield server
    finally:
        await server.stop()


# -- echoes


class Echoed:
    """One server, and how quick its echoes were."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.rates: list[float] = []
        self.taken: list[float] = []
        self.server_cpu: list[float] = []
        self.client_cpu: list[float] = []

    async def round(self, connections: int, seconds: float) -> None:
        """Closed loop: one message under way on each connection."""
        async with connected(self.server.port, Echoing, connections) as clients:
            for client in clients:
                client.begin()
            await asyncio.sleep(WARM_UP)
            for client in clients:
                client.taken.clear()
            started, theirs, mine = clock(), self.server.cpu(), time.process_time()
            await asyncio.sleep(seconds)
            elapsed = clock() - started
            counted = sum(len(client.taken) for client in clients)
            self.server_cpu.append((self.server.cpu() - theirs) / counted * 1e6)
            self.client_cpu.append((time.process_time() - mine) / elapsed)
            self.rates.append(counted / elapsed)
            for each in await asyncio.gather(*(client.end() for client in clients)):
                self.taken += each

    def result(self) -> Result:
        return {
            "value": statistics.median(self.rates),
            **milliseconds(self.taken),
            "cpu_us": statistics.median(self.server_cpu),
            "client_busy": statistics.median(self.client_cpu),
        }


async def echo(systems: Opened, options: Options) -> list[Result]:
    """All servers at once, in turns; who waits takes no processor."""
    found: list[Echoed | Result] = []
    try:
        for system, folder in systems:
            try:
                found.append(Echoed(await cast("Served", system).start("echo", folder)))
            except Exception as error:
                found.append(failure(error))
        for number in range(options["rounds"]):
            for place in range(len(found)):
                await _turn(found, (number + place) % len(found), options)
    finally:
        for each in found:
            if isinstance(each, Echoed):
                await each.server.stop()
    return [each.result() if isinstance(each, Echoed) else each for each in found]


async def _turn(found: list[Echoed | Result], place: int, options: Options) -> None:
    """One round of one server; one that fails is measured no more, and the others are."""
    each = found[place]
    if isinstance(each, Echoed):
        try:
            await each.round(options["connections"], options["seconds"])
        except Exception as error:
            found[place] = failure(error)
            await each.server.stop()


async def one_by_one(
    systems: Opened, options: Options, measure: Callable[[Served, Path, Options], Awaitable[Result]]
) -> list[Result]:
    """Each server alone; one that fails leaves the others be."""
    found: list[Result] = []
    for system, folder in systems:
        try:
            found.append(await measure(cast("Served", system), folder, options))
        except Exception as error:
            found.append(failure(error))
    return found


# -- idle sessions


async def idle(systems: Opened, options: Options) -> list[Result]:
    """The memory of a server for each connection that says nothing, in KB."""
    return await one_by_one(systems, options, _idle)


async def _idle(served: Served, folder: Path, options: Options) -> Result:
    async with running(served, "echo", folder) as server:
        async with connected(server.port, Connection, 20):
            pass
        await asyncio.sleep(options["settle"])
        before = server.resident()
        async with connected(server.port, Connection, options["connections"]) as clients:
            await asyncio.sleep(options["settle"])
            each = (server.resident() - before) / len(clients) / 1024
    return {"value": each, "base_mb": before / 1024 / 1024}


# -- connects and disconnects


class Once(Connection):
    """Waits for one echo."""

    def __init__(self) -> None:
        super().__init__()
        self.back = asyncio.get_running_loop().create_future()

    def came(self, message: bytes) -> None:
        if not self.back.done():
            self.back.set_result(message)


async def come_and_go(port: int, count: int, *, lose_each: int) -> None:
    """Connect, say something, go: with a goodbye, but for one in so many."""
    numbers = iter(range(1, count + 1))

    async def some() -> None:
        for number in numbers:
            client = await connect(port, Once)
            client.send(ECHO)
            await asyncio.wait_for(client.back, 30)
            await (client.drop() if number % lose_each == 0 else client.close())

    await asyncio.gather(*(some() for _ in range(CONNECTING)))


async def churn(systems: Opened, options: Options) -> list[Result]:
    """What is left after many connections came and went."""
    return await one_by_one(systems, options, _churn)


async def _churn(served: Served, folder: Path, options: Options) -> Result:
    doing: Doing = "brief" if "brief" in served.does else "echo"
    async with running(served, doing, folder) as server:
        await come_and_go(server.port, options["warm_up"], lose_each=options["lose_each"])
        before = await _settled(server, None)
        started = clock()
        await come_and_go(server.port, options["connects"], lose_each=options["lose_each"])
        elapsed = clock() - started
        after = await _settled(server, before)
    base = before["resident"]
    grown = after["resident"] - base
    cached = after["page_cache"] - before["page_cache"]
    return {
        "value": 100 * (grown - cached) / base,
        "with_page_cache": 100 * grown / base,
        "base_mb": base / 1024 / 1024,
        "per_second": options["connects"] / elapsed,
        **{f"left_{name}": after[name] - before[name] for name in COUNTED},
    }


async def _settled(server: Server, before: dict[str, int] | None) -> dict[str, int]:
    """What it holds once nothing more is let go, or nothing more than before is held."""
    deadline = clock() + SETTLE_LIMIT
    last = await server.holds()
    while clock() < deadline:
        await asyncio.sleep(2)
        now = await server.holds()
        if before is None and all(now[name] >= last[name] for name in COUNTED):
            return now
        if before is not None and all(now[name] <= before[name] for name in COUNTED):
            return now
        last = now
    return last


# -- interrupts


async def interrupts(systems: Opened, options: Options) -> list[Result]:
    """How long text goes on after an interrupt, while all sessions speak."""
    return await one_by_one(systems, options, _interrupts)


async def _interrupts(served: Served, folder: Path, options: Options) -> Result:
    async with (
        running(served, "speak", folder) as server,
        connected(server.port, Listening, options["connections"]) as clients,
    ):
        for client in clients:
            client.ask()
        await _all_speak(clients)
        await asyncio.sleep(options["settle"])
        words, started = sum(client.chunks for client in clients), clock()
        alone = await _alone(clients, options)
        words = sum(client.chunks for client in clients) - words
        rate = words / (clock() - started)
        await _all_speak(clients)
        together = await asyncio.gather(*(client.interrupt(options["quiet"]) for client in clients))
    return {"words_per_second": rate, **_stopped(alone, together)}


def _stopped(
    alone: Sequence[tuple[float, float]], together: Sequence[tuple[float, float]]
) -> Result:
    """When the last chunk came, and the end of the answer."""
    last, end = milliseconds([a for a, _ in alone]), [b for _, b in alone]
    return {
        "value": last["max_ms"],
        "turns": len(alone),
        **last,
        "end_p99_ms": milliseconds(end)["p99_ms"],
        "end_max_ms": milliseconds(end)["max_ms"],
        "together_max_ms": milliseconds([a for a, _ in together])["max_ms"],
        "together_end_max_ms": milliseconds([b for _, b in together])["max_ms"],
    }


async def _all_speak(clients: Sequence[Listening]) -> None:
    """Wait until a new chunk has come to each."""
    before = [client.chunks for client in clients]
    async with asyncio.timeout(SETTLE_LIMIT):
        while any(c.chunks == had for c, had in zip(clients, before, strict=True)):
            await asyncio.sleep(0.02)


async def _alone(clients: list[Listening], options: Options) -> list[tuple[float, float]]:
    """One interrupt after the other, a short time apart; who was interrupted asks again."""

    async def one(client: Listening) -> tuple[float, float]:
        found = await client.interrupt(options["quiet"])
        client.ask()
        return found

    tasks: list[asyncio.Task[tuple[float, float]]] = []
    for number in range(options["interrupts"]):
        tasks.append(asyncio.create_task(one(clients[number % len(clients)])))
        await asyncio.sleep(options["apart"])
    return await asyncio.gather(*tasks)
