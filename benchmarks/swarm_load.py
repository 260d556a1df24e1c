"""What the measuring process of `swarm` does: turns of both, alternating; clients that come and go.

A conversation is opened, and its garbage collected, outside of the clock.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from typing import cast

from benchmarks.child import Opened
from benchmarks.ours import DATABASE
from benchmarks.swarm_clients import Answering, Ask, Coming, shop
from benchmarks.workloads import Options, Result
from tertulia import MemoryStore, Runtime

TURNS = 20
"""In one conversation."""

clock = time.perf_counter


async def turns(systems: Opened, options: Options) -> list[Result]:
    """Milliseconds a turn, of some clients at once; the median of the rounds after the first."""
    answering = [cast("Answering", system) for system, _ in systems]
    taken: list[list[float]] = [[] for _ in answering]
    swarm = shop()
    in_memory = options["in_memory"]
    store = MemoryStore() if in_memory else f"sqlite:///{systems[0][1] / DATABASE}"
    async with Runtime(store, swarms=[swarm]) as runtime:
        for each in answering:
            each.open(runtime, swarm)
        for number in range(options["rounds"] + 1):
            for place in range(len(answering)):
                which = (number + place) % len(answering)
                spent = await conversations(answering[which], f"{number}", options["clients"])
                if number:
                    taken[which].append(spent)
    return [
        {"value": statistics.median(mine) * 1000, "turns": TURNS * options["clients"] * len(mine)}
        for mine in taken
    ]


async def conversations(answering: Answering, name: str, clients: int) -> float:
    """Seconds for one turn, of so many conversations that are held at once."""
    asks = [await answering.begin(f"{name}-{number}") for number in range(clients)]
    gc.collect()
    started = clock()
    if clients == 1:
        await talk(asks[0])
    else:
        await asyncio.gather(*(talk(ask) for ask in asks))
    spent = clock() - started
    await answering.end(TURNS * clients)
    return spent / (TURNS * clients)


async def talk(ask: Ask) -> None:
    """One conversation."""
    for number in range(TURNS):
        if not await ask(f"{number}: where is my order?"):
            raise RuntimeError("there was no answer")


async def visits(systems: Opened, options: Options) -> list[Result]:
    """Clients a second that come and go, one after the other; and what is left of them."""
    coming = cast("Coming", systems[0][0])
    swarm = shop()
    rates: list[float] = []
    async with Runtime(MemoryStore(), swarms=[swarm]) as runtime:
        coming.open(runtime, swarm)
        for number in range(options["rounds"] + 1):
            gc.collect()
            started = clock()
            for visitor in range(options["visits"]):
                await coming.visit(f"client-{number}-{visitor}", options["turns"])
            rates.append(options["visits"] / (clock() - started))
        left = len(runtime.client_sessions()) + runtime.bus.subscriptions
        left += len(asyncio.all_tasks()) - 1
    return [{"value": statistics.median(rates[1:]), "left": left}]
