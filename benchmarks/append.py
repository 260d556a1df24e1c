"""Durable append: promise 1 (acknowledged means durable) at a price near SQLite's own.

One session, one turn after the other: a two-message turn against the same two rows through a
bare writer thread, a single message against one such row, and both beside every peer. Peers
that never sync are compared on the RAM disk only, where a sync costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.figures import Figure, Target
from benchmarks.measure import Bench
from benchmarks.systems import BARE_WRITER, OURS, PEERS, RAW_SQLITE, Named
from benchmarks.workloads import Options

TURN = "append.turn"
MESSAGE = "append.message"
UNIT = "turns/s"


def measure(bench: Bench) -> Iterator[Figure]:
    """Every figure of this promise on one medium."""
    groups = bench.plan.groups([OURS, BARE_WRITER], [RAW_SQLITE])
    turns = bench.samples("two-message turns", "append", groups, lambda n: options(bench, n, 2))
    yield bench.compared(TURN, turns, BARE_WRITER, UNIT, Target("ratio", ">=", 0.6))
    if bench.plan.peers:
        fastest = turns.best(comparable(bench), highest=True)
        beaten = Target("ratio", ">", 1)
        yield bench.compared(f"{TURN}.fastest_peer", turns, fastest, UNIT, beaten)
    yield from bench.others(TURN, turns, groups, UNIT)
    pair = [[OURS, BARE_WRITER]]
    single = bench.samples("single messages", "append", pair, lambda n: options(bench, n, 1))
    yield bench.compared(MESSAGE, single, BARE_WRITER, "messages/s", Target("ratio", ">=", 0.6))
    yield from bench.others(MESSAGE, single, pair, "messages/s")


def comparable(bench: Bench) -> list[Named]:
    """The peers that promise here what we promise."""
    return [peer for peer in PEERS if peer.syncs or not bench.medium.sync_costs]


def options(bench: Bench, named: Named, messages_per_turn: int) -> Options:
    """The same work for everybody, in rounds of 100 turns; less for those who say so."""
    turns = 400 if bench.plan.quick else 2000
    turns = min(turns, named.turn_limit or turns)
    return {
        "turns": turns,
        "messages_per_turn": messages_per_turn,
        "rounds": max(1, turns // 100),
        "time_limit": 5 if bench.plan.quick else 20,
    }
