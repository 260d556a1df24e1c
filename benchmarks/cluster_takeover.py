"""What becomes of 10,000 sessions whose worker is killed with `kill -9`.

Their turns are open, with a model that does not answer. At the moment of the kill 100 of them are
spoken to through another worker, each by a client with an idempotency key, who says it again when
it has the answer. Afterwards the rows themselves say whether a turn has two ends, a position is
missing or there twice, and whether all that was acknowledged is there: each of the 10,000 turns
began before its model was asked, and each of the 100 answers was shown to a client.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from time import monotonic
from typing import Any, NamedTuple

from benchmarks.cluster_servers import (
    FAILURES,
    Client,
    Engines,
    engines,
    failed,
    versions,
    workers,
)
from benchmarks.figures import Figure, Target
from benchmarks.measure import Bench
from benchmarks.workloads import milliseconds
from tertulia import Runtime
from tertulia.stores.postgres import driver
from tertulia.stores.postgres.address import LEASE_SECONDS, parse

HELD, TOUCHED, AT_ONCE = 10_000, 100, 500
SOON = Target("value", "<=", (LEASE_SECONDS + 1) * 1000)
NOTHING = Target("value", "==", 0)
FAULTS = {
    "two_ends": """
        SELECT count(*) FROM (
            SELECT 1 FROM tertulia.events WHERE type IN (
                'turn.completed', 'turn.failed', 'turn.interrupted', 'turn.abandoned'
            ) GROUP BY session, turn HAVING count(*) > 1
        ) AS found""",
    "gaps": """
        SELECT count(*) FROM (
            SELECT s.key FROM tertulia.sessions AS s
            LEFT JOIN tertulia.events AS e ON e.session = s.key
            GROUP BY s.key HAVING count(e.seq) <> s.seq OR max(e.seq) <> s.seq
        ) AS found""",
    "lost": """
        SELECT count(*) FROM unnest($1::text[], $2::text[], $3::bigint[]) AS said (id, text, seq)
        WHERE NOT EXISTS (
            SELECT 1 FROM tertulia.sessions AS s JOIN tertulia.events AS e ON e.session = s.key
            WHERE s.app = '' AND s.id = said.id AND e.type = 'message.added'
                AND coalesce(e.seq = said.seq, true)
                AND convert_from(e.body, 'UTF8')::json ->> 'content' = said.text
        )""",
}


class Found(NamedTuple):
    """What was measured."""

    taken: list[float]
    """Seconds from the kill to each answer."""
    held: int
    twice: int
    """Requests that gave another turn when they were said again."""
    faults: dict[str, int]
    unverified: int


class Said(NamedTuple):
    """A message that somebody was told is durable; its position, where that was told too."""

    session: str
    text: str
    seq: int | None


def measure(bench: Bench) -> Iterator[Figure]:
    """Every figure on one medium."""
    try:
        with engines(bench) as running:
            found = asyncio.run(_measured(bench, running))
    except FAILURES as error:
        yield failed("cluster.takeover", bench, error)
        return
    yield from _figures(bench, found)


async def _measured(bench: Bench, running: Engines) -> Found:
    many = 500 if bench.plan.quick else HELD
    address = running.database()
    async with AsyncExitStack() as stack:
        dying, other = await stack.enter_async_context(workers(2, address))
        clients = [await stack.enter_async_context(Client(other.port)) for _ in range(TOUCHED)]
        bench.plan.report(f"takeover · {many} turns begin")
        held = await dying.order("hold", prefix="s", many=many, at_once=AT_ONCE)
        bench.plan.report(f"takeover · kill -9, and {TOUCHED} sessions are spoken to")
        await dying.kill()
        began = monotonic()
        touching = [_touch(client, number) for number, client in enumerate(clients)]
        touched = await asyncio.gather(*touching)
        taken = [at - began for _, at in touched]
        answers = [answer for answer, _ in touched]
        again = await asyncio.gather(*(_touch(each, n) for n, each in enumerate(clients)))
        twice = sum(a["turn"] != b["turn"] for a, (b, _) in zip(answers, again, strict=True))
        bench.plan.report("takeover · the rows are read")
        said = [Said(f"s{number}", f"never {number}", None) for number in range(held)]
        said += [one for number, each in enumerate(answers) for one in _told(number, each)]
        faults = await _faults(address, said)
        return Found(taken, held, twice, faults, await _unverified(address))


async def _touch(client: Client, number: int) -> tuple[Any, float]:
    """The answer to a request, and when it came."""
    answer = await client.run(f"s{number}", f"hello {number}", key=f"hello {number}")
    return answer, monotonic()


def _told(number: int, answer: Any) -> list[Said]:
    return [Said(f"s{number}", each["content"], each["seq"]) for each in answer["messages"]]


async def _faults(address: str, said: list[Said]) -> dict[str, int]:
    """How many there are of each kind."""
    connection = await driver.connect(parse(address).direct)
    try:
        found: dict[str, int] = {}
        for name, text in FAULTS.items():
            values = [list(column) for column in zip(*said, strict=True)] if name == "lost" else []
            found[name] = (await connection.fetch(text, *values))[0][0]
        return found
    finally:
        await connection.close()


async def _unverified(address: str) -> int:
    """How many of the sessions that were spoken to do not verify."""
    async with Runtime(address) as runtime:
        sessions = [runtime.session(f"s{number}") for number in range(TOUCHED)]
        return sum([not await session.verify() for session in sessions])


def _figures(bench: Bench, found: Found) -> Iterator[Figure]:
    times = milliseconds(found.taken)
    note = f"{TOUCHED} of {found.held:,} sessions at once; the lease is {LEASE_SECONDS:g} s"
    for name, value, unit, target in (
        ("max", times["max_ms"], "ms", SOON),
        ("p50", times["p50_ms"], "ms", None),
        ("held", float(found.held), "sessions", None),
        ("turns_twice", float(found.twice), "", NOTHING),
        *((name, float(count), "", NOTHING) for name, count in found.faults.items()),
        ("unverified", float(found.unverified), "", NOTHING),
    ):
        yield Figure(
            figure=f"cluster.takeover.{name}",
            system="tertulia",
            medium=bench.medium.name,
            value=value,
            unit=unit,
            target=target,
            repetitions=1,
            note=note,
            versions=versions(),
        )
