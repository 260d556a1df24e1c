"""What the measuring process of `flat` does: long sessions of ours, made and then timed.

The cases are timed in turns, one call each, so that all of them see the same computer.
"""

from __future__ import annotations

import sqlite3
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import cast

from benchmarks.messages import conversation
from benchmarks.ours import DATABASE, Tertulia
from benchmarks.workloads import Opened, Options, Result

Call = Callable[[int], Awaitable[object]]

clock = time.perf_counter


async def opened(systems: Opened) -> Tertulia:
    """The one system of these workloads."""
    system, folder = systems[0]
    await system.open(folder)
    return cast("Tertulia", system)


def bytes_written() -> int:
    """What this process has written to files so far; 0 where the kernel does not say."""
    try:
        lines = Path("/proc/self/io").read_text().splitlines()
    except OSError:
        return 0
    return int(dict(line.split(": ") for line in lines)["wchar"])


async def timed(cases: dict[str, Call], times: int) -> tuple[dict[str, float], dict[str, float]]:
    """The median milliseconds and the median bytes written of each case."""
    taken: dict[str, list[float]] = {name: [] for name in cases}
    written: dict[str, list[int]] = {name: [] for name in cases}
    for number in range(times):
        for name, call in cases.items():
            before = bytes_written()
            started = clock()
            await call(number)
            taken[name].append(clock() - started)
            written[name].append(bytes_written() - before)
    return (
        {name: round(statistics.median(each) * 1000, 5) for name, each in taken.items()},
        {name: statistics.median(each) for name, each in written.items()},
    )


async def append(systems: Opened, options: Options) -> list[Result]:
    """Appends and forks at several lengths, in a file that already holds many other events."""
    ours = await opened(systems)
    for number in range(options["other"] // 1000):
        await ours.fill(f"other-{number}", conversation(1000))
    appends: dict[str, Call] = {}
    forks: dict[str, Call] = {}
    for size in options["sizes"]:
        names = await _sessions(ours, size, options["times"])
        appends[str(size)] = _append_to(ours, names, size)
        forks[str(size)] = _fork_of(ours, names[0])
    append_ms, append_bytes = await timed(appends, options["times"])
    fork_ms, fork_bytes = await timed(forks, options["times"])
    await ours.close()
    found = {"append_ms": append_ms, "append_bytes": append_bytes}
    return [found | {"fork_ms": fork_ms, "fork_bytes": fork_bytes}]


async def _sessions(ours: Tertulia, size: int, times: int) -> list[str]:
    """Sessions of this size: enough of them that no session doubles while it is measured."""
    names = [f"length-{size}-{number}" for number in range(max(1, times // size))]
    for name in names:
        await ours.fill(name, conversation(size - 1))
        await ours.append(name, conversation(1, start=size - 1))
    return names


def _append_to(ours: Tertulia, names: Sequence[str], size: int) -> Call:
    def call(number: int) -> Awaitable[object]:
        message = conversation(1, start=size + number)
        return ours.append(names[number % len(names)], message)

    return call


def _fork_of(ours: Tertulia, name: str) -> Call:
    return lambda number: ours.fork(name, f"{name}-fork-{number}")


async def history(systems: Opened, options: Options) -> list[Result]:
    """The newest 20 messages, in every situation where a reader could have to look far."""
    ours = await opened(systems)
    small, large = options["small"], options["large"]
    await ours.fill("small", conversation(small))
    await ours.fill("large", conversation(large))
    reads: dict[str, Call] = {"small": _read(ours, "small"), "large": _read(ours, "large")}
    for name, case in PREPARED.items():
        reads[name] = _read(ours, await case(ours, options))
    for name in ("small", "large"):
        reads[f"first read of a fork of {name}"] = await _first_reads(ours, name, options)
    for name, call in reads.items():
        if "fork of" not in name:
            await _check(name, call)
    history_ms, _ = await timed(reads, options["times"])
    await ours.close()
    opened_ms = await _first_reads_after_opening(ours, systems[0][1], options)
    return [{"history_ms": history_ms | opened_ms}]


async def _check(name: str, call: Call) -> None:
    """A fast wrong answer is an error: 20 messages, or the 10 that are left to see."""
    expected = 10 if name in {"after clear and 10 messages", "after keep_last_10"} else 20
    found = await call(0)
    if found != expected:
        raise RuntimeError(f"history(limit=20), {name}: {found} messages instead of {expected}")


def _read(ours: Tertulia, session: str) -> Call:
    return lambda _: ours.last(session, 20)


async def _first_reads(ours: Tertulia, name: str, options: Options) -> Call:
    """A read of a fork that nobody has read; the forks are made before the clock runs."""
    for number in range(options["times"]):
        await ours.fork(name, f"{name}-first-{number}")
    return lambda number: ours.last(f"{name}-first-{number}", 20)


async def _first_reads_after_opening(
    ours: Tertulia, folder: Path, options: Options
) -> dict[str, float]:
    """The same in a runtime that has only just been opened, and has read another session."""
    taken: dict[str, list[float]] = {"small": [], "large": []}
    for _ in range(options["openings"]):
        for name, each in taken.items():
            await ours.open(folder)
            await ours.last("cleared", 20)
            started = clock()
            await ours.last(name, 20)
            each.append(clock() - started)
            await ours.close()
    return {
        f"first read of {name} after opening": round(statistics.median(each) * 1000, 5)
        for name, each in taken.items()
    }


async def _cleared(ours: Tertulia, options: Options) -> str:
    await ours.fill("cleared", conversation(options["large"]))
    await ours.clear("cleared")
    await ours.fill("cleared", conversation(10))
    return "cleared"


async def _pruned(ours: Tertulia, options: Options) -> str:
    await ours.fill("pruned", conversation(options["large"]))
    await ours.keep_last_10("pruned")
    return "pruned"


async def _failed(ours: Tertulia, options: Options) -> str:
    await ours.fill("failed", conversation(options["small"]))
    for _ in range(options["failed_turns"]):
        await ours.fail_a_turn("failed")
    return "failed"


async def _failed_with_state(ours: Tertulia, options: Options) -> str:
    """Between the failed turns lies a fact that is no message, so the gaps do not join up."""
    await ours.fill("failed-state", conversation(options["small"]))
    for number in range(options["failed_turns"]):
        await ours.fail_a_turn("failed-state")
        await ours.remember("failed-state", number)
    return "failed-state"


async def _deep(ours: Tertulia, turn: int) -> str:
    name = f"deep-{turn}"
    await ours.fill(f"{name}-0", conversation(100))
    for level in range(64):
        await ours.fork(f"{name}-{level}", f"{name}-{level + 1}")
        if turn:
            await ours.append(f"{name}-{level + 1}", conversation(turn))
    return f"{name}-64"


PREPARED: dict[str, Callable[[Tertulia, Options], Awaitable[str]]] = {
    "after clear and 10 messages": _cleared,
    "after keep_last_10": _pruned,
    "behind failed turns": _failed,
    "behind failed turns with a state change between them": _failed_with_state,
    "64 forks deep, a turn in each": lambda ours, _: _deep(ours, 2),
    "64 forks deep, nothing in each": lambda ours, _: _deep(ours, 0),
}


async def size(systems: Opened, options: Options) -> list[Result]:
    """The bytes of the database and its log after a checkpoint, for texts of one size."""
    ours = await opened(systems)
    messages = conversation(options["messages"], options["text"])
    for start in range(0, len(messages), 2):
        await ours.append("conversation", messages[start : start + 2])
    await ours.close()
    path = systems[0][1] / DATABASE
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    log = path.with_name(f"{path.name}-wal")
    kept = path.stat().st_size + (log.stat().st_size if log.exists() else 0)
    connection.close()
    return [{"value": kept, "text_bytes": sum(len(m["content"]) for m in messages)}]
