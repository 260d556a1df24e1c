"""The agents: what a turn of ours costs beside the model library, and that it keeps its order.

The models are scripted, so what is left is the runtime's own work. A turn is compared with the
same call on `pydantic_ai.direct` and two awaited appends of ours: our turns stream, so a model of
the library is compared with its stream, and the least model of ours with the cheapest call that
the library has. The first word of a stream is compared with the same model alone. Syncs are
counted where they are made.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from benchmarks import media
from benchmarks.figures import Figure, Target
from benchmarks.measure import Bench, Samples, details
from benchmarks.systems import Named

TALKERS = "benchmarks.agent_talkers"
ONE_WORD = Named(
    name="tertulia, the least model",
    where=f"{TALKERS}:OurOneWord",
    kind="ours",
    note="a model of our own that answers in one piece",
)
TEST = Named(
    name="tertulia, TestModel",
    where=f"{TALKERS}:OurTestModel",
    kind="ours",
    note="the library's model, as a provider's: streamed",
)
FUNCTION = Named(
    name="tertulia, FunctionModel",
    where=f"{TALKERS}:OurFunctionModel",
    kind="ours",
    note="the library's model, as a provider's: streamed",
)
APPENDS = "and two awaited appends of ours"
DIRECT_TEST = Named(
    name="direct.model_request, TestModel",
    where=f"{TALKERS}:DirectTestModel",
    kind="limit",
    note=APPENDS,
)
DIRECT_TEST_STREAM = Named(
    name="direct.model_request_stream, TestModel",
    where=f"{TALKERS}:DirectTestModelStream",
    kind="limit",
    note=APPENDS,
)
DIRECT_FUNCTION = Named(
    name="direct.model_request_stream, FunctionModel",
    where=f"{TALKERS}:DirectFunctionModel",
    kind="limit",
    note=APPENDS,
)
LIMITS = [DIRECT_TEST, DIRECT_TEST_STREAM, DIRECT_FUNCTION]
MANY = Named(name="tertulia, a model of ours", where=f"{TALKERS}:OurManyWords", kind="ours")
MANY_BARE = Named(name="that model alone", where=f"{TALKERS}:BareManyWords", kind="limit")
PIECES = Named(name="tertulia, FunctionModel", where=f"{TALKERS}:OurPieces", kind="ours")
PIECES_BARE = Named(
    name="direct.model_request_stream, FunctionModel",
    where=f"{TALKERS}:BarePieces",
    kind="limit",
)
OBEYING = Named(name="tertulia", where="benchmarks.agent_sessions:Obeying", kind="ours")

NEAR = Target("ratio", "<=", 1.5)
NOTHING = Target("value", "==", 0)
MS = 1.0


def measure(bench: Bench) -> Iterator[Figure]:
    """Every figure of the agents on one medium."""
    yield from turns(bench)
    yield from tokens(bench)
    yield from syncs(bench)
    yield from sessions(bench)


def turns(bench: Bench) -> Iterator[Figure]:
    """What a turn costs, with the threads where the kernel puts them, and held on one core."""
    group = [ONE_WORD, TEST, FUNCTION, *LIMITS]
    rounds = 5 if bench.plan.quick else 50
    for name, cores in (("agent.turn", None), ("agent.turn.one_core", 1)):
        if cores and not hasattr(os, "sched_getaffinity"):
            yield Figure(figure=name, system="", medium="", note="not measured: no such cores")
            continue
        options = {"rounds": rounds, "cores": cores}
        found = bench.samples(name, "agent_turns", [group], lambda _, given=options: given)
        for mine, same in (
            (ONE_WORD, DIRECT_TEST),
            (TEST, DIRECT_TEST_STREAM),
            (FUNCTION, DIRECT_FUNCTION),
        ):
            yield bench.compared(name, found, same, "ms", None if cores else NEAR, mine)
        unlike = bench.compared(f"{name}.unlike", found, DIRECT_TEST, "ms", None, TEST)
        yield replace(unlike, note="a stream beside a request that is none")
        yield from bench.others(name, found, [LIMITS], "ms")


def tokens(bench: Bench) -> Iterator[Figure]:
    """How much later the first word comes than from the model alone, and the words after it."""
    options = {"rounds": 3 if bench.plan.quick else 20}
    for mine, bare in ((MANY, MANY_BARE), (PIECES, PIECES_BARE)):
        found = bench.samples("words", "agent_tokens", [[mine, bare]], lambda _: options)
        yield from words(bench, found, mine, bare)


def words(bench: Bench, found: Samples, mine: Named, bare: Named) -> Iterator[Figure]:
    """The figures of one model."""
    error = found.error(mine.name) or found.error(bare.name)
    figure = partial(bench.figure, system=mine.name, samples=found)
    if error is not None:
        yield replace(figure("agent.first_token"), error=error)
        return

    def added(key: str) -> float:
        return found.median(mine.name, key) - found.median(bare.name, key)

    late = added("value")
    sync = found.median(mine.name, "sync_ms")
    yield figure(
        "agent.first_token",
        value=late,
        unit="ms",
        ratio_to="one sync and 1 ms",
        ratio=late / (sync + MS),
        target=Target("ratio", "<=", 1),
        detail={"with": details(found, mine.name), "alone": details(found, bare.name)}
        | {"sync_ms": sync},
        note="later than from the model alone",
    )
    committed = found.median(mine.name, "commits_before")
    once = Target("value", "==", 1)
    yield figure("agent.first_token.commits_before", value=committed, target=once)
    between = float(max(found.each(mine.name, "commits_between")))
    yield figure("agent.later_tokens.commits", value=between, target=NOTHING)
    yield figure("agent.later_tokens", value=added("microseconds_a_word"), unit="µs a word")


def syncs(bench: Bench) -> Iterator[Figure]:
    """The fsyncs and fdatasyncs of a turn, and how many more each round of tools makes."""
    try:
        medium = media.counting(bench.medium, bench.work)
    except media.NotMeasured as reason:
        note = f"not measured: {reason}"
        yield Figure(figure="agent.syncs", system="", medium=bench.medium.name, note=note)
        return
    counting = replace(bench, medium=medium)
    options = {"turns": 5, "many": 100 if bench.plan.quick else 2000}
    found = counting.samples("syncs", "agent_syncs", [[OBEYING]], lambda _: options)
    figure = partial(bench.figure, system=OBEYING.name, samples=found)
    if found.error(OBEYING.name) is not None:
        yield figure("agent.syncs")
        return

    def most(key: str) -> dict[str, Any]:
        return {"value": float(max(found.each(OBEYING.name, key))), "unit": "syncs"}

    two, at_most_two = Target("value", "==", 2), Target("value", "<=", 2)
    for shape in ("turn", "turn.streamed"):
        yield figure(f"agent.syncs.{shape}", **most(shape), target=two)
    for shape in ("one_round", "three_rounds", "parallel_tools", "blocking_tools"):
        for name in (shape, f"{shape}.streamed"):
            note = "more than a turn, for each round"
            yield figure(f"agent.syncs.{name}", **most(name), target=at_most_two, note=note)
    note = "two tools, the second 0.2 s later: its result is a commit of its own"
    yield figure("agent.syncs.uneven_tools", **most("uneven_tools"), note=note)
    note = "of all turns, with what moves the journal into the file"
    yield figure("agent.syncs.with_checkpoints", **most("with_checkpoints"), note=note)


def sessions(bench: Bench) -> Iterator[Figure]:
    """200 sessions of 20 turns at once, each fifth turn with two tools."""
    options = {"sessions": 200, "turns": 5 if bench.plan.quick else 20}
    found = bench.samples("200 sessions", "agent_sessions", [[OBEYING]], lambda _: options)
    yield bench.alone("agent.sessions", OBEYING.name, found, "turns/s")
    if found.error(OBEYING.name) is not None:
        return
    figure = partial(bench.figure, system=OBEYING.name, samples=found)
    for key in ("p50_ms", "p99_ms"):
        value = found.median(OBEYING.name, key)
        yield figure(f"agent.sessions.{key.removesuffix('_ms')}", value=value, unit="ms")
    for key in ("lost_messages", "interleaved", "errors"):
        total = float(sum(found.each(OBEYING.name, key)))
        yield figure(f"agent.sessions.{key}", value=total, target=NOTHING)
