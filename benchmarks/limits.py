"""The bare limits: what SQLite itself allows for the same rows, with the same durability.

Promise 1 (acknowledged means durable) is measured as a ratio to these. Both keep WAL and
`synchronous=FULL`, one row a message, and do nothing else: no order across processes, no
digest, no fence, no history.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from benchmarks.messages import Message
from benchmarks.systems import System

Row = tuple[str, int, str]

SCHEMA = """
CREATE TABLE IF NOT EXISTS message (
    id INTEGER PRIMARY KEY, session TEXT NOT NULL, seq INTEGER NOT NULL, body TEXT NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS message_order ON message (session, seq);
"""
INSERT = "INSERT INTO message (session, seq, body) VALUES (?, ?, ?)"
LAST = "SELECT body FROM message WHERE session = ? ORDER BY seq DESC LIMIT ?"
COUNT = "SELECT count(*) FROM message WHERE session = ?"

encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def connect(folder: Path) -> sqlite3.Connection:
    """A connection in autocommit mode, as durable as our own."""
    connection = sqlite3.connect(folder / "limit.db", isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.executescript(SCHEMA)
    return connection


class Rows(System):
    """What the limits share: messages to rows, and reading on the loop's own connection."""

    async def open(self, folder: Path) -> None:
        self.connection = connect(folder)
        self.heads: defaultdict[str, int] = defaultdict(int)

    def rows(self, session: str, messages: list[Message]) -> list[Row]:
        head = self.heads[session]
        self.heads[session] = head + len(messages)
        return [(session, head + i, encode(m)) for i, m in enumerate(messages, 1)]

    async def last(self, session: str, limit: int) -> int:
        found = self.connection.execute(LAST, (session, limit)).fetchall()
        return len([json.loads(body) for (body,) in reversed(found)])

    async def count(self, session: str) -> int:
        return int(self.connection.execute(COUNT, (session,)).fetchone()[0])

    async def close(self) -> None:
        self.connection.close()


class RawSqlite(Rows):
    """One blocking transaction a turn on the caller's own thread."""

    async def append(self, session: str, messages: list[Message]) -> None:
        execute = self.connection.execute
        execute("BEGIN IMMEDIATE")
        self.connection.executemany(INSERT, self.rows(session, messages))
        execute("COMMIT")


@dataclass(frozen=True, slots=True)
class Job:
    """The rows of one turn, and who waits for them."""

    rows: list[Row]
    waiter: asyncio.Future[None]


class BareWriter(Rows):
    """One writer thread with a queue: whatever waits is committed together, then awoken."""

    async def open(self, folder: Path) -> None:
        await super().open(folder)
        self.loop = asyncio.get_running_loop()
        self.queue: SimpleQueue[Job | None] = SimpleQueue()
        self.thread = threading.Thread(target=self._write, args=(connect(folder),))
        self.thread.start()

    async def append(self, session: str, messages: list[Message]) -> None:
        waiter = self.loop.create_future()
        self.queue.put(Job(self.rows(session, messages), waiter))
        await waiter

    async def close(self) -> None:
        self.queue.put(None)
        self.thread.join()
        await super().close()

    def _write(self, connection: sqlite3.Connection) -> None:
        while (first := self.queue.get()) is not None:
            batch = [first]
            for _ in range(self.queue.qsize()):
                if (job := self.queue.get()) is None:
                    self.queue.put(None)
                    break
                batch.append(job)
            error = self._commit(connection, batch)
            self.loop.call_soon_threadsafe(wake, batch, error)
        connection.close()

    def _commit(self, connection: sqlite3.Connection, batch: list[Job]) -> Exception | None:
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(INSERT, [row for job in batch for row in job.rows])
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            return error
        return None


def wake(batch: list[Job], error: Exception | None) -> None:
    """Answer everyone in the batch, on their own loop."""
    for job in batch:
        if job.waiter.done():
            continue
        if error is None:
            job.waiter.set_result(None)
        else:
            job.waiter.set_exception(error)
