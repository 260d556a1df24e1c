"""Behind a pooler that gives each transaction another connection, every promise holds as well."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from urllib.parse import quote

import pytest
from tests.postgres.pooler import Pooler, pooled

from tertulia import Runtime
from tertulia.errors import ConfigurationError
from tertulia.stores import LogStore
from tertulia.stores.postgres import PostgresStore
from tertulia.testing.store_changes import append, birth, record, seqs, whole
from tertulia.testing.store_contract import StoreContract
from tertulia.testing.store_memories import MemoryContract, Store


@pytest.fixture
def pooler(postgres_server: str) -> Iterator[Pooler]:
    with pooled(postgres_server) as made:
        yield made


@pytest.fixture
def through(pooler: Pooler, new_postgres: Callable[[], str]) -> Callable[[], str]:
    """Gives addresses of empty databases behind the pooler."""

    def make() -> str:
        direct = new_postgres()
        host = pooler.url.rpartition("/")[0]
        return f"{host}/{direct.rpartition('/')[2]}?direct={quote(direct, safe='')}"

    return make


class TestStoreBehindAPooler(StoreContract):
    @pytest.fixture(autouse=True)
    def databases(self, through: Callable[[], str]) -> None:
        self.new = through

    def make(self) -> LogStore:
        return PostgresStore(self.new())


class TestMemoriesBehindAPooler(MemoryContract):
    @pytest.fixture(autouse=True)
    def databases(self, through: Callable[[], str]) -> None:
        self.new = through

    def make(self) -> Store:
        return PostgresStore(self.new())


async def test_many_at_once_meet_other_connections_and_lose_nothing(
    pooler: Pooler, through: Callable[[], str]
) -> None:
    address = through()
    store, other = PostgresStore(address), PostgresStore(address)

    async def grow(name: str) -> None:
        row = await store.commit(birth(name))
        for seq in range(1, 21):
            row = await store.commit(append(row, record(seq)))
            assert (await other.find(None, name)) == row
        assert seqs(await other.records(whole(row))) == list(range(1, 21))

    await asyncio.gather(*(grow(f"s{n}") for n in range(5)))
    assert pooler.moves > 20
    assert await other.worker_is_alive(store.worker)
    await store.close()
    await other.close()


async def test_a_pooler_that_was_not_told_of_is_recognised(
    pooler: Pooler, new_postgres: Callable[[], str]
) -> None:
    direct = new_postgres()
    await PostgresStore(direct).migrate()
    store = PostgresStore(f"{pooler.url.rpartition('/')[0]}/{direct.rpartition('/')[2]}")

    async def look() -> None:
        for _ in range(100):
            await asyncio.gather(*(store.find(None, f"s{n}") for n in range(4)))

    with pytest.raises(ConfigurationError, match="direct="):
        await look()
    await store.close()


async def test_a_session_works_through_it(through: Callable[[], str]) -> None:
    async with Runtime(through()) as runtime:
        session = runtime.session("s", user_id="ann")
        async with session.turn("question") as turn:
            session.set_state("count", 1, scope="user")
            await turn.add_message({"role": "assistant", "content": "answer"})
        assert session.get_state("count", scope="user") == 1
        assert await session.verify()
