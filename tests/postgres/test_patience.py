"""How long work waits for a server that says nothing, and for connections that others have."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.postgres.proxy import Proxy, proxied

from tertulia import doors
from tertulia.errors import OutcomeUnknown, StoreClosed, StoreUnavailable
from tertulia.stores.postgres import PostgresStore, connections, driver, presence, turns
from tertulia.stores.postgres.connections import Connections
from tertulia.testing.store_changes import birth

IN_TIME = 8.0
"""Seconds; much more than is needed, and much less than one patience after the other."""


@pytest.fixture
def proxy(postgres: str) -> Iterator[Proxy]:
    with proxied(postgres) as made:
        yield made


@pytest.fixture
def store(proxy: Proxy) -> Iterator[PostgresStore]:
    made = PostgresStore(proxy.url)
    yield made
    proxy.let_go()
    doors.call(made.close())


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a second instead of half a minute."""
    monkeypatch.setattr(connections, "PATIENCE", 0.5)
    monkeypatch.setattr(connections, "STATEMENT_SECONDS", 0.5)
    monkeypatch.setattr(connections, "CONNECT_SECONDS", 0.5)


@asynccontextmanager
async def locked(address: str, table: str) -> AsyncGenerator[driver.Connection]:
    """Nobody else can read a table for a while."""
    db = await driver.connect(address)
    try:
        async with db.transaction():
            await db.execute(f"LOCK TABLE tertulia.{table} IN ACCESS EXCLUSIVE MODE")
            yield db
    finally:
        await db.close()


async def ends(work: Awaitable[Any]) -> str:
    try:
        await work
    except (StoreUnavailable, OutcomeUnknown, StoreClosed) as error:
        return type(error).__name__
    return "done"


@pytest.mark.usefixtures("impatient")
async def test_what_waits_for_a_silent_server_ends_together(
    proxy: Proxy, store: PostgresStore
) -> None:
    await asyncio.gather(*(store.find(None, "s") for _ in range(8)))
    proxy.hold()
    async with asyncio.timeout(IN_TIME):
        found = await asyncio.gather(*(ends(store.find(None, "s")) for _ in range(100)))
    assert set(found) == {"StoreUnavailable"}
    proxy.let_go()
    assert await store.find(None, "s") is None


@pytest.mark.usefixtures("impatient")
async def test_a_close_while_the_server_is_silent_ends_though_much_waits_to_be_written(
    proxy: Proxy, store: PostgresStore
) -> None:
    await store.commit(birth("first"))
    proxy.hold()
    waiting = [asyncio.ensure_future(ends(store.commit(birth(f"s{n}")))) for n in range(20_000)]
    await asyncio.sleep(0)
    async with asyncio.timeout(IN_TIME):
        await store.close()
        found = await asyncio.gather(*waiting)
    assert set(found) == {"StoreUnavailable", "OutcomeUnknown"}


async def test_a_commit_waits_for_no_reads(postgres: str, store: PostgresStore) -> None:
    await store.commit(birth("first"))
    async with locked(postgres, "entities"):
        reads = [asyncio.ensure_future(store.entity("kind", f"k{n}")) for n in range(20)]
        while len(await blocked(postgres)) < connections.READING:
            await asyncio.sleep(0.01)
        async with asyncio.timeout(IN_TIME):
            await store.commit(birth("second"))
        assert not any(read.done() for read in reads)
    assert await asyncio.gather(*reads) == [None] * 20


async def blocked(address: str) -> list[driver.Row]:
    db = await driver.connect(address)
    try:
        return await db.fetch("SELECT pid FROM pg_locks WHERE NOT granted")
    finally:
        await db.close()


async def test_one_too_many_that_waits_for_a_connection_is_refused(
    postgres: str, store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "WAITING", 5)
    await store.incarnation()
    async with locked(postgres, "entities"):
        reads = [asyncio.ensure_future(store.entity("kind", f"k{n}")) for n in range(20)]
        refused, _ = await asyncio.wait(reads, return_when="FIRST_COMPLETED")
    await asyncio.wait(reads)
    for read in refused:
        with pytest.raises(StoreUnavailable, match="slow down"):
            await read
    assert sum(read.exception() is None for read in reads) >= connections.READING


async def test_who_waits_for_a_turn_and_is_cancelled_takes_none() -> None:
    made, until = turns.Turns(1), asyncio.get_running_loop().time() + 60

    async def use() -> None:
        async with made.turn(until):
            await asyncio.sleep(0)

    for cancel_after in range(4):
        async with made.turn(until):
            waiting = asyncio.ensure_future(use())
            await asyncio.sleep(0)
        for _ in range(cancel_after):
            await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait({waiting})
        async with asyncio.timeout(IN_TIME):
            await use()


async def test_a_direct_connection_that_falls_silent_at_once_is_given_up(
    postgres: str, proxy: Proxy, store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "CONNECT_SECONDS", 0.5)
    await store.incarnation()
    silent = asyncio.Event()
    loop = asyncio.get_running_loop()
    made: list[driver.Connection] = []
    with proxied(postgres) as other:

        async def connect_directly(_: Connections) -> driver.Connection:
            found = await Connections.connect(postgres if made else other.url)
            if not made:
                other.hold()
                loop.call_soon_threadsafe(silent.set)
            made.append(found)
            return found

        monkeypatch.setattr(Connections, "connect_directly", connect_directly)
        proxy.cut()
        await silent.wait()
        async with asyncio.timeout(IN_TIME):
            while len(made) < 2 or (await store.workers())[0].silent > 0.6:
                await asyncio.sleep(0.05)
        assert (await store.workers())[0].alive


def threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "tertulia-postgres"]


async def test_a_close_that_is_cancelled_goes_on_and_can_be_waited_for(proxy: Proxy) -> None:
    before = threads()
    store = PostgresStore(proxy.url)
    await store.incarnation()
    proxy.hold()
    closing = asyncio.ensure_future(store.close())
    await asyncio.sleep(0.1)
    closing.cancel()
    await asyncio.wait({closing})
    assert closing.cancelled()
    proxy.let_go()
    await store.close()
    assert threads() == before


def test_a_close_whose_loop_ends_leaves_no_thread(proxy: Proxy) -> None:
    before = threads()
    store = PostgresStore(proxy.url)

    async def begin() -> None:
        await store.incarnation()
        proxy.hold()
        closing = asyncio.ensure_future(store.close())
        await asyncio.sleep(0.1)
        del closing

    asyncio.run(begin())
    proxy.let_go()
    for thread in set(threads()) - set(before):
        thread.join(IN_TIME)
    assert threads() == before
