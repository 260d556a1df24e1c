"""Bells of a PostgreSQL store over NATS."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncGenerator, Callable, Collection, Iterable
from contextlib import asynccontextmanager

from tests.bus.nats_helpers import connection, eventually, named

from tertulia.bus.nats_bells import MAX_SESSIONS, NatsBells
from tertulia.bus.nats_connection import NatsConnection
from tertulia.stores.base import SessionRow
from tertulia.stores.clustering import Clustered
from tertulia.stores.postgres import PostgresStore
from tertulia.testing.servers import NatsServer
from tertulia.testing.store_changes import append, birth, record


class Recording:
    """Notes what a store would be told."""

    def __init__(self) -> None:
        self.rung: list[list[int] | None] = []
        self.carrier: Callable[[Collection[int]], bool] | None = None

    async def incarnation(self) -> str:
        return "a database"

    def carry_bells(self, carrier: Callable[[Collection[int]], bool] | None) -> None:
        self.carrier = carrier

    def ring_here(self, sessions: Iterable[int] | None) -> None:
        self.rung.append(None if sessions is None else list(sessions))

    def ring(self, sessions: Collection[int]) -> bool:
        """Ring elsewhere, as the store does after a commit."""
        assert self.carrier is not None
        return self.carrier(sessions)


@asynccontextmanager
async def ringing(url: str, database: str) -> AsyncGenerator[PostgresStore]:
    """A worker whose bells go over NATS, and that has heard all that is rung as it begins."""
    store = PostgresStore(database)
    assert isinstance(store, Clustered)
    async with connection(url) as one:
        bells = NatsBells(one, store)
        begun = await watched(store, 0)
        await bells.start()
        try:
            await eventually(lambda: begun)
            yield store
        finally:
            bells.close()
            await store.close()


@asynccontextmanager
async def recording(url: str) -> AsyncGenerator[tuple[Recording, NatsBells]]:
    """A store that was told that all may have changed, once: it is connected."""
    store = Recording()
    async with connection(url) as one:
        bells = NatsBells(one, store)
        await bells.start()
        await eventually(lambda: store.rung == [None])
        yield store, bells
        bells.close()
        assert store.carrier is None


def tap_bells(tap: NatsConnection, carried: list[bytes]) -> None:
    """Hear all bells that name sessions."""

    def hear(subject: str, data: bytes, reply: str) -> None:
        if len(data) > 8:
            carried.append(data)

    tap.subscribe(f"tertulia.{tap.name}.bell.*", hear)


async def watched(store: PostgresStore, session: int) -> list[int]:
    """What a watcher of a session hears."""
    rung: list[int] = []
    store.watch(session, lambda: rung.append(session))
    return rung


async def begun(store: PostgresStore, name: str) -> SessionRow:
    """A new session."""
    return await store.commit(birth(name))


async def test_a_commit_rings_at_another_worker_by_one_message(nats: str, postgres: str) -> None:
    url = named(nats)
    carried: list[bytes] = []
    async with connection(url) as tap, ringing(url, postgres) as one, ringing(url, postgres) as two:
        row = await begun(one, "s")
        rung = await watched(two, row.key)
        tap.subscribe(
            f"tertulia.{tap.name}.bell.*", lambda subject, data, reply: carried.append(data)
        )
        while not carried:
            row = await one.commit(append(row, record(row.seq + 1)))
        await eventually(lambda: rung)
        assert all(int.from_bytes(data[8:], "little") == row.key for data in carried)


async def test_a_bell_of_another_database_does_not_ring(
    nats: str, new_postgres: Callable[[], str]
) -> None:
    url = named(nats)
    mine, theirs = new_postgres(), new_postgres()
    async with (
        ringing(url, mine) as one,
        ringing(url, mine) as two,
        ringing(url, theirs) as stranger,
    ):
        row = await begun(one, "s")
        other = await begun(stranger, "s")
        assert row.key == other.key
        rung = await watched(two, row.key)
        heard = await watched(stranger, other.key)
        heard.clear()
        row = await one.commit(append(row, record(row.seq + 1)))
        await eventually(lambda: rung)
        assert heard == []


async def test_without_nats_the_database_rings_and_then_nats_again(postgres: str) -> None:
    server = NatsServer()
    try:
        async with (
            connection(server.url) as tap,
            ringing(server.url, postgres) as one,
            ringing(server.url, postgres) as two,
        ):
            row = await begun(one, "s")
            rung = await watched(two, row.key)
            os.kill(server.pid, signal.SIGKILL)
            await eventually(lambda: not tap.connected)
            server.stop()
            while not rung:
                row = await one.commit(append(row, record(row.seq + 1)))
            rung.clear()
            row = await one.commit(append(row, record(row.seq + 1)))
            await eventually(lambda: rung)
            carried: list[bytes] = []
            server.start()
            assert await tap.ready(10)
            tap.subscribe(
                "tertulia.default.bell.*", lambda subject, data, reply: carried.append(data)
            )
            while not carried:
                row = await one.commit(append(row, record(row.seq + 1)))
    finally:
        server.close()


async def test_bells_name_sessions_or_when_they_are_many_all(nats: str) -> None:
    url = named(nats)
    async with recording(url) as (one, _), recording(url) as (two, _):
        assert one.ring([])
        assert one.ring([2**62, 1, 7])
        assert two.ring(range(MAX_SESSIONS))
        assert one.ring(range(MAX_SESSIONS + 1))
        await eventually(lambda: len(two.rung) == 3 and len(one.rung) == 2)
        assert two.rung == [None, [2**62, 1, 7], None]
        assert one.rung == [None, list(range(MAX_SESSIONS))]


async def test_all_are_looked_at_when_the_connection_goes_and_when_it_comes() -> None:
    server = NatsServer()
    try:
        async with recording(server.url) as (one, _):
            os.kill(server.pid, signal.SIGKILL)
            await eventually(lambda: one.rung == [None, None])
            assert not one.ring([1])
            server.stop()
            server.start()
            await eventually(lambda: one.rung == [None, None, None])
            assert one.ring([1])
    finally:
        server.close()


async def test_what_is_no_bell_is_ignored(nats: str) -> None:
    url = named(nats)
    subjects: list[str] = []
    async with connection(url) as foreign, recording(url) as (one, _), recording(url) as (two, b):
        foreign.subscribe(
            "tertulia.*.bell.*", lambda subject, data, reply: subjects.append(subject)
        )
        while not any(foreign.name in subject for subject in subjects):
            one.ring([5])
            await eventually(lambda: [5] in two.rung)
        subject = next(each for each in subjects if foreign.name in each)
        for data in (b"", b"short", b"12345678odd"):
            foreign.publish(subject, data)
        await eventually(lambda: b.ignored == 3)


async def test_bells_that_were_closed_ring_no_more(nats: str) -> None:
    url = named(nats)
    store = Recording()
    one = NatsConnection(url)
    bells = NatsBells(one, store)
    await bells.start()
    await eventually(lambda: store.rung == [None])
    bells.close()
    bells.close()
    await one.close()
    assert (store.rung, store.carrier) == ([None], None)
