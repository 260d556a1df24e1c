"""One database, several stores and processes: bells, workers, forks, and what is refused."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tertulia import Runtime, doors, open_store
from tertulia.errors import (
    ConfigurationError,
    InvalidInput,
    StaleWriter,
    StoreUnavailable,
    UsageError,
)
from tertulia.stores import engine
from tertulia.stores.base import (
    Change,
    Details,
    Input,
    Receipt,
    Request,
    Segment,
    SessionRow,
    SharedWrite,
)
from tertulia.stores.memories import MemoryRow, MemoryScope
from tertulia.stores.postgres import PostgresStore, driver, operations
from tertulia.testing.store_changes import append, birth, record, seqs, whole

HOLDER = """
import asyncio, sys
from tertulia.stores import PostgresStore
from tertulia.testing.store_changes import birth

async def main():
    store = PostgresStore(sys.argv[1])
    await store.commit(birth("held by a child"))
    print(store.worker.hex(), flush=True)
    sys.stdin.read()
    await store.close()

asyncio.run(main())
"""

FORK = """
import asyncio, os, sys
from tertulia.errors import ForkedRuntimeError
from tertulia.stores import PostgresStore
from tertulia.testing.store_changes import append, birth, record

async def main():
    store = PostgresStore(sys.argv[1])
    row = await store.commit(birth("s"))
    child = os.fork()
    if not child:
        for attempt in (lambda: store.commit(append(row, record(1))), lambda: store.stats() and
                        store.find(None, "s").send(None)):
            try:
                attempt()
            except ForkedRuntimeError:
                os.write(1, b"refused\\n")
        del store
        import gc
        gc.collect()
        os._exit(0)
    os.waitpid(child, 0)
    row = await store.commit(append(row, record(1)))
    print((await store.find(None, "s")).seq, flush=True)
    await store.close()

asyncio.run(main())
"""

LEAVER = """
import sys
from tertulia import Runtime
session = Runtime(sys.argv[1]).session("s")
session.set_state("kept", 1)
async def later():
    session.set_state("later", 2)
import asyncio
asyncio.run(later())
"""


@contextmanager
def child(program: str, *arguments: str) -> Generator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", program, *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.fixture
def store(postgres: str) -> Iterator[PostgresStore]:
    made = PostgresStore(postgres)
    yield made
    doors.call(made.close())


# -- bells


async def test_a_bell_rings_for_the_commits_of_another_process(
    postgres: str, store: PostgresStore
) -> None:
    row = await store.commit(birth("s"))
    other = PostgresStore(postgres)
    rung = asyncio.Event()
    loop = asyncio.get_running_loop()

    def bell() -> None:
        loop.call_soon_threadsafe(rung.set)

    unwatch = other.watch(row.key, bell)
    for seq in range(1, 200):
        row = await store.commit(append(row, record(seq)))
        if rung.is_set():
            break
        await asyncio.sleep(0.01)
    assert rung.is_set()
    unwatch()
    await other.close()


# -- workers


async def test_a_worker_lives_until_its_process_is_killed(
    postgres: str, store: PostgresStore
) -> None:
    await store.find(None, "s")
    with child(HOLDER, postgres) as holder:
        worker = bytes.fromhex(line(holder))
        assert await store.worker_is_alive(worker)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        while await store.worker_is_alive(worker):
            await asyncio.sleep(0.05)


async def test_a_worker_that_ends_in_order_is_dead_at_once(
    postgres: str, store: PostgresStore
) -> None:
    other = PostgresStore(postgres)
    await other.find(None, "s")
    assert await store.worker_is_alive(other.worker)
    await other.close()
    assert not await store.worker_is_alive(other.worker)


async def test_a_worker_that_is_stopped_is_alive_for_its_lease_and_no_longer(
    postgres: str, store: PostgresStore
) -> None:
    with child(HOLDER, postgres) as holder:
        worker = bytes.fromhex(line(holder))
        os.kill(holder.pid, signal.SIGSTOP)
        assert await store.worker_is_alive(worker)
        await _age(postgres, worker, 3)
        assert await store.worker_is_alive(worker)
        await _age(postgres, worker, 30)
        await _started_long_ago(store)
        assert not await store.worker_is_alive(worker)
        os.kill(holder.pid, signal.SIGCONT)


async def _age(address: str, worker: bytes, seconds: float) -> None:
    """Let a heartbeat be older than it is."""
    db = await driver.connect(address)
    text = "UPDATE tertulia.workers SET heartbeat = clock_timestamp() - $2 * interval '1 s'"
    await db.execute(text + " WHERE worker = $1", worker, float(seconds))
    await db.close()


async def _started_long_ago(store: PostgresStore) -> None:
    """Wait until the server has run for longer than a lease."""

    async def age(db: driver.Connection) -> float:
        text = "SELECT extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())::float8"
        return float((await db.fetch(text))[0][0])

    while await store._ask(age) < 6:  # pyright: ignore[reportPrivateUsage]
        await asyncio.sleep(0.1)


async def test_two_stores_race_for_one_session_and_one_of_them_wins_each_time(
    postgres: str, store: PostgresStore
) -> None:
    other = PostgresStore(postgres)
    row = await store.commit(birth("s"))
    for seq in range(1, 31):
        attempts = [
            asyncio.ensure_future(_try(each, append(row, record(seq, text=text))))
            for each, text in ((store, "one"), (other, "other"))
        ]
        won = [each for each in await asyncio.gather(*attempts) if each is not None]
        assert len(won) == 1
        row = won[0]
    assert seqs(await other.records(whole(row))) == list(range(1, 31))
    await other.close()


async def _try(store: PostgresStore, change: Any) -> Any:
    try:
        return await store.commit(change)
    except StaleWriter:
        return None


# -- threads, loops, processes


def test_it_works_without_a_loop_and_from_many_threads(store: PostgresStore) -> None:
    async def grow(name: str) -> list[int]:
        row = await store.commit(birth(name))
        for seq in range(1, 11):
            row = await store.commit(append(row, record(seq)))
        return seqs(await store.records(whole(row)))

    found: list[list[int]] = []

    def target(name: str) -> None:
        found.append(doors.call(grow(name)))

    threads = [threading.Thread(target=target, args=(f"s{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [list(range(1, 11))] * 4
    assert asyncio.run(grow("loop")) == list(range(1, 11))
    assert asyncio.run(grow("another loop")) == list(range(1, 11))


async def test_a_call_on_the_thread_of_the_store_is_refused(store: PostgresStore) -> None:
    row = await store.commit(birth("s"))
    refused: list[Exception] = []

    def bell() -> None:
        try:
            doors.call(store.find(None, "s"))
        except UsageError as error:
            refused.append(error)

    store.watch(row.key, bell)
    await store.commit(append(row, record(1)))
    assert refused


def test_a_forked_child_is_refused_and_the_parent_goes_on(postgres: str) -> None:
    with child(FORK, postgres) as parent:
        assert [line(parent) for _ in range(3)] == ["refused", "refused", "1"]
        assert parent.wait() == 0


def test_what_was_not_awaited_is_written_when_the_process_ends(
    postgres: str, store: PostgresStore
) -> None:
    with child(LEAVER, postgres) as process:
        assert process.wait() == 0
    session = Runtime(store).session("s")
    assert (session.get_state("kept"), session.get_state("later")) == (1, 2)


async def test_a_change_whose_waiter_was_cancelled_is_written(store: PostgresStore) -> None:
    row = await store.commit(birth("s"))

    async def wait() -> None:
        await store.commit(append(row, record(1)))

    waiting = asyncio.ensure_future(wait())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    while (await store.row(row.key)) == row:
        continue
    assert seqs(await store.records([Segment(row.key, 0, 1)])) == [1]


async def test_many_sessions_are_committed_in_few_transactions(store: PostgresStore) -> None:
    rows = [await store.commit(birth(f"s{n}")) for n in range(100)]
    before = store.stats().commits
    for seq in range(1, 4):
        waiting = [store.commit(append(row, record(seq))) for row in rows]
        rows = [await each for each in waiting]
    assert store.stats().commits - before < 150
    assert store.stats().batch_size_max > 10


# -- names and addresses


async def test_a_text_that_postgresql_cannot_keep_is_refused_alone(store: PostgresStore) -> None:
    good, bad = store.commit(birth("good")), store.commit(birth("b\0ad"))
    assert (await good).id == "good"
    with pytest.raises(InvalidInput, match="NUL"):
        await bad
    with pytest.raises(InvalidInput):
        await store.find(None, "\ud800")


def nul_in_writes(store: PostgresStore, row: SessionRow) -> Mapping[str, Callable[[], Any]]:
    """Writes with a NUL in each kind of text, by what it is in."""
    bad, seq = "a\0b", row.seq + 1
    share = SharedWrite(scope="app", app=None, user=None, key=bad, value=b"1")
    request = Request(key=bad, digest=b"d", turn=1, status="done", result=None, time=1)
    changes: dict[str, Change] = {
        "id": birth(bad),
        "app": birth("born", app=bad),
        "user": birth("born", user=bad),
        "type": append(row, record(seq, kind=bad)),
        "actor": append(row, replace(record(seq), actor=bad)),
        "state": append(row, record(seq), state=[(bad, seq)]),
        "shared": append(row, record(seq), shared=[share]),
        "expected": append(row, record(seq), shared=[replace(share, expect=0)]),
        "request": append(row, record(seq), request=request),
    }
    scope, owner = MemoryScope(app=None, user=None), MemoryScope(app=None, user=bad)
    good = MemoryRow(key="good", content="c", metadata="{}", created=1, updated=1)
    entry = Input(session=row.key, worker=b"w", kind=bad, time=1, body=b"")
    return {name: partial(store.commit, each) for name, each in changes.items()} | {
        "input": partial(store.put_input, entry),
        "entity": partial(store.put_entity, "kind", bad, b"1", 0),
        "receipt": partial(store.add_receipt, Receipt(time=1, type=bad, body=b"")),
        "memory": partial(store.put_memories, scope, [good, replace(good, key=bad)]),
        "content": partial(store.put_memories, scope, [good, replace(good, content=bad)]),
        "owner": partial(store.put_memories, owner, [good]),
        "document": partial(_save, store, bad),
    }


async def _save(store: PostgresStore, name: str) -> None:
    await asyncio.to_thread(store.save, name, {})


async def contents(address: str) -> list[list[driver.Row]]:
    """All rows of all tables but those of the workers."""
    db = await driver.connect(address)
    tables = await db.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = 'tertulia'::regnamespace "
        "AND relkind IN ('r', 'p') AND NOT relispartition AND relname <> 'workers' ORDER BY 1"
    )
    names: list[str] = [each[0] for each in tables]
    found = [await db.fetch(f"SELECT * FROM tertulia.{name}") for name in names]
    await db.close()
    return found


async def test_a_nul_in_any_text_is_refused_and_nothing_of_it_is_written(
    postgres: str, store: PostgresStore
) -> None:
    row = await store.commit(birth("s"))
    before = await contents(postgres)
    for name, write in nul_in_writes(store, row).items():
        with pytest.raises(InvalidInput, match="NUL"):
            await write()
        assert await contents(postgres) == before, name
    row = await store.commit(append(row, record(1), after={"open_calls": ("a\0b",)}))
    kept = await store.commit(
        birth("born", details=Details(metadata={"a\0b": "a\0b"}, system="\0"))
    )
    assert await store.row(row.key) == row
    assert await store.row(kept.key) == kept


async def test_a_nul_is_refused_where_it_is_looked_for(store: PostgresStore) -> None:
    row = await store.commit(birth("s"))
    bad = "a\0b"
    for read in (
        store.find(None, bad),
        store.find(bad, "s"),
        store.rows(user=bad),
        store.rows(app=bad, any_app=False),
        store.records(whole(row), types=[bad]),
        store.state(whole(row), bad),
        store.shared("user", None, bad, "k"),
        store.shared_keys("user", bad, None),
        store.request(row.key, bad),
        store.entity("kind", bad),
        store.memories(MemoryScope(app=None, user=bad), ["k"]),
        asyncio.to_thread(store.load, bad),
    ):
        with pytest.raises(InvalidInput, match="NUL"):
            await read


async def test_the_wrong_password_is_said_at_once_and_not_shown(postgres: str) -> None:
    user, _, rest = postgres.partition("@")
    wrong = f"{user[:-1]}x@{rest}"
    store = open_store(wrong)
    with pytest.raises(StoreUnavailable, match="password") as refused:
        await store.find(None, "s")
    secret = user.rpartition(":")[2]
    assert secret[:-1] not in f"{refused.value} {store.url}"
    with pytest.raises(StoreUnavailable):
        await store.commit(birth("s"))
    await store.close()


@pytest.mark.parametrize("address", ["postgresql://host", "postgres:", "postgresql://h/d?direct=x"])
def test_an_address_without_a_database_is_refused(address: str) -> None:
    with pytest.raises(ConfigurationError):
        open_store(address)


@pytest.mark.parametrize(
    "url", ["postgresql://u:secret@h:port/d", "postgresql://u:secret@[h/d", "postgresql://u@h:1/d"]
)
def test_an_address_that_cannot_be_read_is_refused_without_its_secrets(url: str) -> None:
    if "secret" not in url:
        url += "?direct=postgresql://u:secret@h:port/d"
    with pytest.raises(ConfigurationError, match="port") as refused:
        PostgresStore(url)
    assert "secret" not in str(refused.value)
    assert refused.value.__cause__ is None


@pytest.mark.parametrize("kind", ["postgres", "sqlite"])
async def test_old_requests_are_forgotten_in_steps(
    kind: str, postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "ERASE_AT_ONCE", 2)
    monkeypatch.setattr(operations, "ERASE_AT_ONCE", 2)
    made = open_store(postgres if kind == "postgres" else f"sqlite:///{tmp_path}/store.db")
    row = await made.commit(birth("s"))
    for n in range(5):
        asked = Request(key=f"k{n}", digest=b"d", turn=1, status="done", result=None, time=n)
        row = await made.commit(append(row, request=asked))
    assert await made.drop_requests(4) == 4
    assert await made.request(row.key, "k3") is None
    assert await made.request(row.key, "k4") is not None
    await made.close()
