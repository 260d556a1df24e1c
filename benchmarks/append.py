"""Durable append: promise 1 (acknowledged means durable) at a price near SQLite's own.

One session, one turn after the other: a two-message turn against the same two rows through a
bare writer thread, a single message against one such row, and both beside every peer. Peers
that never sync are compared on the RAM disk only, where a sync costs nothing.

How fast two threads wake each other depends on where the kernel puts them. The figures with a
target leave that to the kernel, each system in a process of its own; `.one_core` and
`.two_cores` hold the threads in place, and are the ones to watch while improving the code.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from benchmarks.figures import Figure, Target
from benchmarks.measure import Bench, Group
from benchmarks.systems import BARE_WRITER, OURS, PEERS, RAW_SQLITE, Named
from benchmarks.workloads import Options

TURN = "append.turn"
MESSAGE = "append.message"
NEAR = Target("ratio", ">=", 0.6)


def measure(bench: Bench) -> Iterator[Figure]:
    """Every figure of this promise on one medium."""
    groups = bench.plan.groups([OURS], [BARE_WRITER], [RAW_SQLITE])
    every = partial(options, bench, per_turn=2)
    turns = bench.samples("two-message turns", "append", groups, every)
    yield bench.compared(TURN, turns, BARE_WRITER, "turns/s", NEAR)
    if bench.plan.peers:
        fastest = turns.best(comparable(bench), highest=True)
        beaten = Target("ratio", ">", 1)
        ahead = bench.compared(f"{TURN}.fastest_peer", turns, fastest, "turns/s", beaten)
        yield replace(ahead, note=who_counts(bench))
    yield from bench.others(TURN, turns, groups, "turns/s")
    groups = [[OURS], [BARE_WRITER]]
    every = partial(options, bench, per_turn=1)
    single = bench.samples("single messages", "append", groups, every)
    yield bench.compared(MESSAGE, single, BARE_WRITER, "messages/s", NEAR)
    yield from bench.others(MESSAGE, single, groups, "messages/s")
    yield from in_place(bench)


def in_place(bench: Bench) -> Iterator[Figure]:
    """The same with the threads held on one core, and on two."""
    groups: list[Group] = [[OURS, BARE_WRITER]]
    for cores, word in ((1, "one_core"), (2, "two_cores")):
        for name, per_turn, unit in ((TURN, 2, "turns/s"), (MESSAGE, 1, "messages/s")):
            figure = f"{name}.{word}"
            if not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < cores:
                yield Figure(
                    figure=figure, system="", medium="", note="not measured: no such cores"
                )
                continue
            every = partial(options, bench, per_turn=per_turn, cores=cores)
            found = bench.samples(figure, "append", groups, every)
            yield bench.compared(figure, found, BARE_WRITER, unit, None)
            yield from bench.others(figure, found, groups, unit)


def comparable(bench: Bench) -> list[Named]:
    """The peers that promise here what we promise."""
    return [peer for peer in PEERS if peer.syncs or not bench.medium.sync_costs]


def who_counts(bench: Bench) -> str:
    """What a comparison with the fastest peer leaves out, and why."""
    left = [peer.name for peer in PEERS if peer not in comparable(bench)]
    return f"without {', '.join(left)}: never synced" if left else ""


def options(bench: Bench, named: Named, *, per_turn: int, cores: int | None = None) -> Options:
    """The same work for everybody, in rounds of 100 turns; less for those who say so."""
    turns = 400 if bench.plan.quick else 2000
    turns = min(turns, named.turn_limit or turns)
    return {
        "turns": turns,
        "messages_per_turn": per_turn,
        "rounds": max(1, turns // 100),
        "time_limit": 5 if bench.plan.quick else 20,
        "cores": cores,
    }
