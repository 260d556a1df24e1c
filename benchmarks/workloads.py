"""What a measuring process does: the same steps for us, for the limits and for the peers.

`append` is one session of many turns, `concurrent` 200 sessions at once, `last` reading the
newest messages, and `fork`. Systems that share one process take turns in rounds, because a
noisy computer changes faster than a process starts. Preparation is outside of every clock; a
time limit stops a slow system early, and its result then says so.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from benchmarks.messages import Turn, conversation, turns
from benchmarks.systems import System

Options = dict[str, Any]
Result = dict[str, Any]
Opened = list[tuple[System, Path]]
WARM_UP = 20

clock = time.perf_counter


def milliseconds(values: Sequence[float]) -> Result:
    """Median, 99th percentile and worst of these seconds."""
    if not values:
        return {"p50_ms": None, "p99_ms": None, "max_ms": None}
    ordered = sorted(values)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    each = {"p50_ms": statistics.median(ordered), "p99_ms": p99, "max_ms": ordered[-1]}
    return {name: round(value * 1000, 4) for name, value in each.items()}


class Driver:
    """Appends turns to one system, and keeps what happened to each of them."""

    def __init__(self, system: System, folder: Path, time_limit: float) -> None:
        self.system = system
        self.folder = folder
        self.left = time_limit
        self.elapsed = 0.0
        self.taken: list[float] = []
        self.acknowledged: Counter[str] = Counter()
        self.attempted: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()

    async def begin(self, names: Sequence[str], turn: Turn) -> None:
        """One turn in each session before the clock runs: opening a session is not measured."""
        for name in names:
            self.attempted[name] += len(turn)
            await self.system.append(name, turn)
            self.acknowledged[name] += len(turn)

    async def round(self, names: Sequence[str], each: Sequence[Turn]) -> None:
        """Every session takes all these turns; the sessions run at the same time."""
        started = clock()
        self.deadline = started + self.left
        if len(names) == 1:
            await self.drive(names[0], each, others=False)
        else:
            await asyncio.gather(*(self.drive(name, each, others=True) for name in names))
        spent = clock() - started
        self.elapsed += spent
        self.left -= spent

    async def drive(self, session: str, each: Sequence[Turn], *, others: bool) -> None:
        """Each turn after the one before it; waiting behind the others counts as waiting."""
        append = self.system.append
        for turn in each:
            started = clock()
            if started > self.deadline:
                return
            if others:
                await asyncio.sleep(0)
            self.attempted[session] += len(turn)
            try:
                await append(session, turn)
            except Exception as error:
                self.errors[f"{type(error).__name__}: {error}"[:120]] += 1
                continue
            self.taken.append(clock() - started)
            self.acknowledged[session] += len(turn)

    async def compare(self) -> Result:
        """Read everything back through a new opening: what was lost, what came half."""
        await self.system.close()
        await self.system.open(self.folder)
        lost = extra = 0
        for session in self.attempted:
            difference = await self.system.count(session) - self.acknowledged[session]
            lost += max(0, -difference)
            extra += max(0, difference)
        await self.system.close()
        return {"lost_messages": lost, "unacknowledged_messages": extra}

    async def result(self, wanted: int) -> Result:
        done, errors = len(self.taken), sum(self.errors.values())
        found = {"value": done / self.elapsed, "turns": done, **milliseconds(self.taken)}
        found |= {"errors": errors, "error_kinds": dict(self.errors)}
        if done + errors < wanted:
            found["stopped_early"] = f"after {done} of {wanted} turns"
        return found | await self.compare()


async def drivers(systems: Opened, options: Options, per_turn: int) -> list[Driver]:
    """Every system open and warm."""
    made: list[Driver] = []
    for system, folder in systems:
        await system.open(folder)
        for turn in turns(WARM_UP, per_turn):
            await system.append("warm-up", turn)
        made.append(Driver(system, folder, options["time_limit"]))
    if cores := options.get("cores"):
        place_threads(cores)
    return made


def place_threads(cores: int) -> None:
    """Hold the loop's thread on one core, and every other thread on the same or on the next.

    Threads that wake each other are three times faster on one core than on two idle ones, and
    the kernel chooses: a close comparison is only fair when it cannot.
    """
    allowed = sorted(os.sched_getaffinity(0))
    for thread in threading.enumerate():
        core = allowed[0] if thread is threading.main_thread() else allowed[cores - 1]
        os.sched_setaffinity(thread.native_id or 0, {core})


async def append(systems: Opened, options: Options) -> list[Result]:
    """One session: turns of one or two messages, one after the other."""
    each = turns(options["turns"], options["messages_per_turn"])
    size = -(-len(each) // options["rounds"])
    made = await drivers(systems, options, options["messages_per_turn"])
    for start in range(0, len(each), size):
        for driver in made:
            await driver.round(["conversation"], each[start : start + size])
    return [await driver.result(len(each)) for driver in made]


async def concurrent(systems: Opened, options: Options) -> list[Result]:
    """Many sessions at once, one task each; a task waits for its own turns only."""
    names = [f"conversation-{number}" for number in range(options["sessions"])]
    per_turn = options.get("messages_per_turn", 2)
    each = turns(options["turns"], per_turn)
    made = await drivers(systems, options, per_turn)
    for driver in made:
        await driver.begin(names, each[0])
    for _ in range(options["rounds"]):
        for driver in made:
            await driver.round(names, each)
    wanted = len(names) * len(each) * options["rounds"]
    return [await driver.result(wanted) for driver in made]


async def last(systems: Opened, options: Options) -> list[Result]:
    """The newest 20 of a session of many messages, again and again."""
    return [await _last(system, folder, options) for system, folder in systems]


async def _last(system: System, folder: Path, options: Options) -> Result:
    limit = options["limit"]
    await system.open(folder)
    await system.fill("conversation", conversation(options["messages"]))
    got = await system.last("conversation", limit)
    if got < limit:
        raise RuntimeError(f"only {got} messages came back")
    taken = await repeated(options, lambda _: system.last("conversation", limit))
    await system.close()
    times = milliseconds(taken)
    return {"value": times["p50_ms"], "read": got, **times}


async def fork(systems: Opened, options: Options) -> list[Result]:
    """Continue a session of many messages under another id."""
    return [await _fork(system, folder, options) for system, folder in systems]


async def _fork(system: System, folder: Path, options: Options) -> Result:
    await system.open(folder)
    await system.fill("conversation", conversation(options["messages"]))
    taken = await repeated(options, lambda n: system.fork("conversation", f"fork-{n}"))
    kept = await system.count("fork-0")
    await system.close()
    if kept != options["messages"]:
        raise RuntimeError(f"the fork shows {kept} of {options['messages']} messages")
    times = milliseconds(taken)
    return {"value": times["p50_ms"], **times}


async def repeated(
    options: Options, call: Callable[[int], Coroutine[Any, Any, object]]
) -> list[float]:
    """The seconds of each call, as often as asked for and as long as there is time."""
    taken: list[float] = []
    deadline = clock() + options["time_limit"]
    for number in range(options["repeat"]):
        started = clock()
        if started > deadline:
            break
        await call(number)
        taken.append(clock() - started)
    return taken
