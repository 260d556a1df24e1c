"""Fills a database with sessions, as copies of some that were held, and looks what is in it."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from benchmarks.cluster_servers import Client
from benchmarks.live_settings import HOST
from tertulia.client.client import LiveClient
from tertulia.stores.postgres.driver import Connection

SHORT, LONG = 1, 11
"""Turns of the two sessions that are copied."""
GONE = 1.0
"""Seconds after which a session that was left is quiet."""
DUE = 200
"""Copies whose time is over."""
DAY_OF_MICROSECONDS = 86_400_000_000
RETENTION = {"ttl_days": 30, "auto_prune": True}

# (copies are made in the order of their keys; their digests are those of what was copied)
COPY_SESSIONS = """
INSERT INTO tertulia.sessions (
    uid, app, id, "user", base, parent, branch, seq, digest, epoch, holder, open_turn, open_calls,
    visible, marks, requests, input_tokens, output_tokens, status, created, active, due_at
)
SELECT decode(md5($1 || n), 'hex'), app, $1 || n, "user", base, parent, branch, seq, digest, epoch,
    NULL, NULL, NULL, visible, marks, requests, input_tokens, output_tokens, status, created,
    active - CASE WHEN n <= $3 THEN 40 * $4::bigint ELSE 0 END,
    due_at - CASE WHEN n <= $3 THEN 40 * $4::bigint ELSE 0 END
FROM tertulia.sessions, generate_series(1, $2::int) AS n WHERE id = $1
"""
COPY_REST = (
    """
INSERT INTO tertulia.session_details (key, details)
SELECT c.key, d.details FROM tertulia.sessions AS s
JOIN tertulia.session_details AS d ON d.key = s.key
JOIN tertulia.sessions AS c ON c.id LIKE $1 || '%' AND c.key <> s.key WHERE s.id = $1
""",
    """
INSERT INTO tertulia.events (
    session, seq, time, turn, format, type, actor, key_id, salt, digest, body_digest, body
)
SELECT c.key, e.seq, e.time, e.turn, e.format, e.type, e.actor, e.key_id, e.salt, e.digest,
    e.body_digest, e.body
FROM tertulia.sessions AS s JOIN tertulia.events AS e ON e.session = s.key
JOIN tertulia.sessions AS c ON c.id LIKE $1 || '%' AND c.key <> s.key WHERE s.id = $1
ORDER BY c.key, e.seq
""",
    """
INSERT INTO tertulia.marks (session, kind, high, low, at)
SELECT c.key, m.kind, m.high, m.low, m.at
FROM tertulia.sessions AS s JOIN tertulia.marks AS m ON m.session = s.key
JOIN tertulia.sessions AS c ON c.id LIKE $1 || '%' AND c.key <> s.key WHERE s.id = $1
""",
)
SIZE = """
SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::float8
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = 'tertulia' AND c.relkind = 'r'
"""
STATE = f"""
SELECT (SELECT count(*) FROM tertulia.events)::float8, ({SIZE}),
    (SELECT xact_commit FROM pg_stat_database WHERE datname = current_database())::float8,
    pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::float8
"""


class State(NamedTuple):
    """What a database has, and what it has done."""

    rows: float
    """Of events."""
    bytes: float
    commits: float
    wal: float


class Filled(NamedTuple):
    """What sessions cost that are kept."""

    sessions: int
    session_bytes: float
    turn_bytes: float
    """With the texts of its two messages."""
    turn_events: float


async def state(db: Connection) -> State:
    """What there is now."""
    return State(*(await db.fetch(STATE))[0])


async def fill(db: Connection, client: Client, text: str, many: int) -> Filled:
    """Fill it with so many sessions, one of ten a long one."""
    found: list[tuple[int, float, float]] = []
    for name, turns, copies in (("short", SHORT, many - many // 10), ("long", LONG, many // 10)):
        await client.post("/v1/sessions", {"id": name, "retention": RETENTION})
        url = f"ws://{HOST}:{client.port}/ws"
        async with LiveClient(url, session_id=name, reconnect=False) as live:
            for _ in range(turns):
                await live.say(text)
        await asyncio.sleep(GONE)
        before = await state(db)
        due = DUE if name == "short" else 0
        await db.execute(COPY_SESSIONS, name, copies, due, DAY_OF_MICROSECONDS)
        for each in COPY_REST:
            await db.execute(each, name)
        after = await state(db)
        rows, size = after.rows - before.rows, after.bytes - before.bytes
        found.append((turns, rows / copies, size / copies))
    (short, few, small), (long, more, large) = found
    turn_bytes = (large - small) / (long - short)
    await db.execute("VACUUM (ANALYZE)")
    await db.execute("CHECKPOINT")
    return Filled(many, small - short * turn_bytes, turn_bytes, (more - few) / (long - short))


async def settled(db: Connection, seconds: float = 1.0) -> State:
    """What there is when the server has told its statistics."""
    await asyncio.sleep(seconds)
    return await state(db)
