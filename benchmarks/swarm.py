"""The swarms: what a turn of a client costs beside a bare session's, and how fast clients go.

Three policies look at what is said and at what is answered, and the bus is on: somebody listens to
the session events of the client, and in `.watched` somebody to everything, too. What the bus does
alone is `bus`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from benchmarks.figures import Figure, Target
from benchmarks.measure import Bench
from benchmarks.systems import Named

CLIENTS = "benchmarks.swarm_clients"
IN_SWARM = Named(
    name="tertulia, a client of a swarm",
    where=f"{CLIENTS}:InSwarm",
    kind="ours",
    note="three policies, a listener to its session events",
)
WATCHED = Named(
    name="tertulia, a client that is watched",
    where=f"{CLIENTS}:Watched",
    kind="ours",
    note="the same, and a listener to all that happens to it",
)
BARE = Named(
    name="tertulia, a bare session",
    where=f"{CLIENTS}:Bare",
    kind="limit",
    note="the same agent and model",
)
COMING = Named(name="tertulia", where=f"{CLIENTS}:Coming", kind="ours")

NEAR = Target("ratio", "<=", 1.3)
QUICK = Target("value", ">=", 2000)
NOTHING = Target("value", "==", 0)
CROWD = 100


def measure(bench: Bench) -> Iterator[Figure]:
    """Every figure of swarms on one medium; what needs no medium with the RAM disk's."""
    yield from turns(bench, in_memory=False)
    if bench.medium.name == "ram":
        memory = replace(bench, medium=replace(bench.medium, name="memory"))
        yield from turns(memory, in_memory=True)
        yield from visits(memory)


def turns(bench: Bench, *, in_memory: bool) -> Iterator[Figure]:
    """A turn of one client, and of many at once."""
    quick = bench.plan.quick
    for name, clients, rounds in (
        ("swarm.turn", 1, 5 if quick else 60),
        ("swarm.turn.crowd", CROWD, 1 if quick else 5),
    ):
        options = {"clients": clients, "rounds": rounds, "in_memory": in_memory}
        found = bench.samples(
            name, "swarm_turns", [[IN_SWARM, WATCHED, BARE]], lambda _, given=options: given
        )
        yield bench.compared(name, found, BARE, "ms", NEAR, IN_SWARM)
        yield bench.compared(f"{name}.watched", found, BARE, "ms", None, WATCHED)
        yield from bench.others(name, found, [[BARE]], "ms")


def visits(bench: Bench) -> Iterator[Figure]:
    """Clients that come and go, with and without one turn."""
    many = 200 if bench.plan.quick else 2000
    for name, said in (("swarm.visits", 0), ("swarm.visits.with_turn", 1)):
        options = {"visits": many, "rounds": 3, "turns": said}
        found = bench.samples(name, "swarm_visits", [[COMING]], lambda _, given=options: given)
        figure = bench.alone(name, COMING.name, found, "clients/s")
        yield replace(figure, target=QUICK)
        if figure.error is None:
            left = float(max(found.each(COMING.name, "left")))
            yield bench.figure(f"{name}.left", COMING.name, found, value=left, target=NOTHING)
