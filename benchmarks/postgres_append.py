"""Durable append on PostgreSQL: beside raw inserts through the same driver, and beside the peers.

The raw baseline is the same shape of work without what makes it a session. Each task awaits its
own append of one event: the same columns, sizes and indexes, in our own table of events with its
16 partitions. What waits is gathered into one `INSERT ... SELECT FROM unnest` a round trip on one
asyncpg connection, on the loop of the callers, and committed with `synchronous_commit` on; an
append that waits alone is a plain `INSERT ... VALUES`. Nothing is fenced, no digest is computed,
and no row of a session is moved.

Ours is `commit` of the store, with the chain of digests: what every append of a session ends in.
Both encode the message and take turns in one process. `.session` is the same through
`Session.send_message`. The turns are two messages, ours through `Session.send_messages`, beside
peers that keep their conversations in the same server.

The server is started for this, with its defaults, and with its data on the medium. The targets
against raw inserts count where a commit waits for a sync; on the RAM disk, where it does not, the
figures show what the software costs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from benchmarks.figures import Figure, Target
from benchmarks.measure import Bench
from benchmarks.systems import Named
from benchmarks.workloads import Options
from tertulia.errors import AgentError
from tertulia.testing.servers import PostgresServer

URL = "TERTULIA_BENCH_POSTGRES"
MEDIA = ("ram", "disk")
HERE = "benchmarks.postgres_systems"
STORE = Named(
    name="tertulia, store.commit",
    where=f"{HERE}:StoreCommits",
    kind="ours",
    note="fenced, with its digests; one event an append",
)
SESSION = Named(
    name="tertulia",
    where=f"{HERE}:Sessions",
    kind="ours",
    note="send_message, send_messages",
)
RAW = Named(
    name="limit: raw batched inserts",
    where=f"{HERE}:RawInserts",
    kind="limit",
    note="asyncpg, what waits in one unnest, no fence, no digest",
)
PEERS = (
    Named(
        name="adk DatabaseSessionService",
        where="benchmarks.peers.postgres:Adk",
        kind="peer",
        note="two append_event a turn, asyncpg, a pool of 20",
    ),
    Named(
        name="langgraph AsyncPostgresSaver",
        where="benchmarks.peers.postgres:LangGraph",
        kind="peer",
        turn_limit=100,
        concurrent_turn_limit=5,
        note="a pool of 20; at most 100 turns a session, 5 at 200 sessions",
    ),
)
HALF = Target("ratio", ">=", 0.5)
AHEAD = Target("ratio", ">", 1)
MANY = 200


def measure(bench: Bench) -> Iterator[Figure]:
    """Every figure on one medium."""
    try:
        with server(bench) as served:
            yield from appends(served)
            yield from turns(served)
    except AgentError as error:
        yield Figure(
            figure="postgres", system="server", medium=bench.medium.name, error=str(error)[:300]
        )


@contextmanager
def server(bench: Bench) -> Generator[Bench]:
    """The same, with a server whose data is on the medium."""
    before, tempfile.tempdir = tempfile.tempdir, str(bench.medium.folder)
    try:
        started = PostgresServer()
    finally:
        tempfile.tempdir = before
    try:
        environment = dict(bench.medium.environment) | {URL: started.url}
        yield replace(bench, medium=replace(bench.medium, environment=environment))
    finally:
        started.close()


def appends(bench: Bench) -> Iterator[Figure]:
    """One event an append, against raw inserts."""
    for name, workload, sessions in (
        ("postgres.append", "append", 1),
        ("postgres.append.many", "concurrent", MANY),
    ):
        groups = [[STORE, RAW], [SESSION, RAW]]
        unit = "appends/s"
        for number, group in enumerate(groups):
            mine = group[0]
            found = bench.samples(
                f"{sessions} on PostgreSQL",
                workload,
                [group],
                lambda named, many=sessions: options(bench, named, many, per_turn=1),
            )
            figure = name if number == 0 else f"{name}.session"
            target = HALF if mine is STORE and bench.medium.sync_costs else None
            yield bench.compared(figure, found, RAW, unit, target, mine)
            yield bench.alone(figure, RAW.name, found, unit, RAW.note)


def turns(bench: Bench) -> Iterator[Figure]:
    """Two messages a turn, ours and the peers'."""
    peers: Sequence[Named] = PEERS if bench.plan.peers else ()
    unit = "turns/s"
    for name, workload, sessions in (
        ("postgres.turn", "append", 1),
        ("postgres.turn.many", "concurrent", MANY),
    ):
        groups = [[SESSION], *([peer] for peer in peers)]
        found = bench.samples(
            f"turns of {sessions} on PostgreSQL",
            workload,
            groups,
            lambda named, many=sessions: options(bench, named, many, per_turn=2),
        )
        if peers:
            fastest = found.best(peers, highest=True)
            yield bench.compared(name, found, fastest, unit, AHEAD, SESSION)
        else:
            yield bench.alone(name, SESSION.name, found, unit, SESSION.note)
        for peer in peers:
            yield bench.alone(name, peer.name, found, unit, peer.note)


def options(bench: Bench, named: Named, sessions: int, *, per_turn: int) -> Options:
    """The same work for everybody, in short rounds; less for those who say so."""
    quick = bench.plan.quick
    limit = named.turn_limit if sessions == 1 else named.concurrent_turn_limit
    rounds = 1 if limit else 5
    turns = (100 if quick else 1000) if sessions == 1 else (10 if quick else 40)
    return {
        "sessions": sessions,
        "turns": min(turns, limit or turns),
        "rounds": rounds,
        "messages_per_turn": per_turn,
        "time_limit": 5 if quick else 20,
    }
