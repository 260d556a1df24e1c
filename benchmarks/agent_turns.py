"""What the measuring process of `agents` does with one session at a time: turns, and words.

Ours and the model library take turns, 20 in a new conversation each, so that both see the same
computer and carry the same history. They use one runtime: one file, one writer thread.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from io import FileIO
from typing import cast

from benchmarks.agent_models import DELTAS
from benchmarks.agent_talkers import Talker
from benchmarks.child import Opened
from benchmarks.ours import DATABASE
from benchmarks.workloads import Options, Result, milliseconds, place_threads
from tertulia import Runtime

TURNS = 20
"""In one conversation."""
PAGE = bytes(4096)

clock = time.perf_counter


@asynccontextmanager
async def talking(systems: Opened, options: Options) -> AsyncIterator[tuple[Runtime, list[Talker]]]:
    """Every talker on one runtime, and warm."""
    async with Runtime(f"sqlite:///{systems[0][1] / DATABASE}") as runtime:
        talkers = [cast("Talker", system) for system, _ in systems]
        for talker in talkers:
            await talker.open(runtime)
        if cores := options.get("cores"):
            place_threads(cores)
        yield runtime, talkers


def in_turns(talkers: Sequence[Talker], rounds: int) -> list[tuple[int, Talker, str]]:
    """Who talks when, and in which conversation; each round begins with another one.

    The first round is to warm up, and has the number 0.
    """
    order: list[tuple[int, Talker, str]] = []
    for number in range(rounds + 1):
        for place in range(len(talkers)):
            which = (number + place) % len(talkers)
            order.append((number, talkers[which], f"conversation-{number}-{which}"))
    return order


async def turns(systems: Opened, options: Options) -> list[Result]:
    """Turns without tools: the time from the question until the answer is durable."""
    async with talking(systems, options) as (_, talkers):
        taken: dict[Talker, list[float]] = {talker: [] for talker in talkers}
        means: dict[Talker, list[float]] = {talker: [] for talker in talkers}
        for number, talker, name in in_turns(talkers, options["rounds"]):
            talker.begin(name)
            each = [await _turn(talker, n) for n in range(TURNS)]
            if number:
                taken[talker] += each
                means[talker].append(statistics.mean(each))
    return [
        {
            "value": statistics.median(means[talker]) * 1000,
            "turns": len(taken[talker]),
            **milliseconds(taken[talker]),
        }
        for talker in talkers
    ]


async def _turn(talker: Talker, number: int) -> float:
    started = clock()
    answer = await talker.turn(f"{number}: where is my order?")
    spent = clock() - started
    if not answer:
        raise RuntimeError("there was no answer")
    return spent


class Told:
    """When the words of one talker came, and what was committed by then."""

    def __init__(self) -> None:
        self.first: list[float] = []
        self.rest: list[float] = []
        self.before: list[int] = []
        self.between: list[int] = []

    def result(self, sync: float) -> Result:
        found = {"value": statistics.median(self.first) * 1000, **milliseconds(self.first)}
        return found | {
            "turns": len(self.first),
            "microseconds_a_word": statistics.median(self.rest) * 1_000_000,
            "commits_before": max(self.before, key=lambda commits: abs(commits - 1)),
            "commits_between": max(self.between),
            "sync_ms": sync * 1000,
        }


async def tokens(systems: Opened, options: Options) -> list[Result]:
    """Streams: the time to the first word, the time between words, and the commits meanwhile."""
    syncs: list[float] = []
    async with talking(systems, options) as (runtime, talkers):
        pages = FileIO(systems[0][1] / "pages", "a")
        told = {talker: Told() for talker in talkers}
        for number, talker, name in in_turns(talkers, options["rounds"]):
            talker.begin(name)
            into = told[talker] if number else Told()
            for turn in range(TURNS):
                await _listen(runtime, talker, f"{turn}: where is my order?", into)
                syncs.append(sync_seconds(pages))
        pages.close()
    return [told[talker].result(statistics.median(syncs)) for talker in talkers]


async def _listen(runtime: Runtime, talker: Talker, text: str, told: Told) -> None:
    before, left = runtime.stats().commits, DELTAS - 1
    started = clock()
    words = talker.pieces(text)
    await anext(words)
    told.first.append(clock() - started)
    committed = runtime.stats().commits
    told.before.append(committed - before)
    started = clock()
    async for _ in words:
        left -= 1
        if left == 0:
            told.rest.append((clock() - started) / (DELTAS - 1))
            told.between.append(runtime.stats().commits - committed)
    if left:
        raise RuntimeError(f"{left} of {DELTAS} words are missing")


def sync_seconds(file: FileIO) -> float:
    """How long this medium takes to make one more page of a growing file durable."""
    file.write(PAGE)
    started = clock()
    os.fdatasync(file.fileno())
    return clock() - started
