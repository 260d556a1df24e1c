"""What becomes of commits when connections, replies and the server itself are lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator

import pytest
from tests.postgres.proxy import Proxy, proxied

from tertulia import doors
from tertulia.errors import AgentError, OutcomeUnknown, SessionExists
from tertulia.stores.base import Input, SessionRow, SharedWrite
from tertulia.stores.postgres import PostgresStore
from tertulia.testing.servers import PostgresServer, new_database
from tertulia.testing.store_changes import WORKER, append, birth, record, seqs, whole

pytestmark = pytest.mark.slow_crash


@pytest.fixture
def proxy(postgres: str) -> Iterator[Proxy]:
    with proxied(postgres) as made:
        yield made


@pytest.fixture
def store(proxy: Proxy) -> Iterator[PostgresStore]:
    made = PostgresStore(proxy.url)
    yield made
    doors.call(made.close())


async def test_a_commit_whose_reply_was_lost_is_found_to_be_there(
    proxy: Proxy, store: PostgresStore
) -> None:
    row = await store.commit(birth("s"))
    for seq in range(1, 6):
        row = await store.commit(append(row, record(seq)))
    proxy.lose_reply_to(record(6).digest)
    row = await store.commit(append(row, record(6)))
    assert proxy.lost.is_set()
    assert seqs(await store.records(whole(row))) == [1, 2, 3, 4, 5, 6]


async def test_a_birth_whose_reply_was_lost_is_found_to_be_there(
    proxy: Proxy, store: PostgresStore
) -> None:
    await store.commit(birth("first"))
    change = birth("s")
    proxy.lose_reply_to(change.after.uid)
    row = await store.commit(change)
    assert proxy.lost.is_set()
    assert await store.find(None, "s") == row
    with pytest.raises(SessionExists):
        await store.commit(birth("s", uid=b"another" + bytes(9)))


async def test_a_chain_whose_reply_was_lost_is_found_to_be_there(
    proxy: Proxy, store: PostgresStore
) -> None:
    row = await store.commit(birth("s"))
    proxy.lose_reply_to(record(1).digest)
    waiting: list[Awaitable[SessionRow]] = []
    for seq in range(1, 21):
        change = append(row, record(seq))
        waiting.append(store.commit(change))
        row = change.after
    for each in waiting:
        await each
    assert proxy.lost.is_set()
    assert seqs(await store.records(whole(row))) == list(range(1, 21))


async def test_what_could_be_done_twice_is_told_to_be_unknown(
    proxy: Proxy, store: PostgresStore
) -> None:
    row = await store.commit(birth("s"))
    share = SharedWrite(scope="app", app=None, user=None, key="k", value=b"1")
    proxy.lose_reply_to(row.digest)
    with pytest.raises(OutcomeUnknown):
        await store.commit(append(row, shared=[share]))
    assert proxy.lost.is_set()
    found = await store.shared("app", None, None, "k")
    assert found is None or found.version == 1


async def test_an_input_whose_reply_was_lost_is_there_once(
    proxy: Proxy, store: PostgresStore
) -> None:
    row = await store.commit(birth("s"))
    entry = Input(session=row.key, worker=WORKER, kind="input", time=1, body=b"{}")
    first = await store.put_input(entry)
    proxy.lose_reply_to(first.worker)
    second = await store.put_input(entry)
    assert proxy.lost.is_set()
    assert await store.inputs(row.key) == [first, second]


async def test_reads_go_on_over_a_cut(proxy: Proxy, store: PostgresStore) -> None:
    row = await store.commit(birth("s"))
    for _ in range(5):
        proxy.cut()
        assert await store.find(None, "s") == row


async def test_a_server_that_is_stopped_crashed_and_started_loses_nothing_acknowledged() -> None:
    server = PostgresServer()
    try:
        store = PostgresStore(new_database(server.url))
        rows = [await store.commit(birth(f"s{n}")) for n in range(8)]
        ending = asyncio.Event()
        writers = [asyncio.ensure_future(_write(store, row, ending)) for row in rows]
        for again in (server.stop, server.crash, server.crash, server.stop):
            await asyncio.sleep(0.2)
            await asyncio.to_thread(again)
            await asyncio.to_thread(server.start)
        await asyncio.sleep(0.2)
        ending.set()
        rows = await asyncio.gather(*writers)
        for row in rows:
            assert row.seq > 0
            assert await store.row(row.key) == row
            assert seqs(await store.records(whole(row))) == list(range(1, row.seq + 1))
        assert await store.worker_is_alive(store.worker)
        await store.close()
    finally:
        server.close()


async def _write(store: PostgresStore, row: SessionRow, ending: asyncio.Event) -> SessionRow:
    while not ending.is_set():
        try:
            row = await store.commit(append(row, record(row.seq + 1)))
        except AgentError as error:
            raise AssertionError(f"event {row.seq + 1} of {row.id}: {error!r}") from error
    return row
