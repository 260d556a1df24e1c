"""What a store of many machines offers: workers, leases, seats, bells, abandoned turns."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import AsyncGenerator, Collection, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.postgres.proxy import proxied
from tests.postgres.test_store import child, line

from tertulia import doors, open_store
from tertulia.errors import ConfigurationError, InvalidInput
from tertulia.stores.base import Change, SessionRow
from tertulia.stores.clustering import Clustered
from tertulia.stores.postgres import PostgresStore, driver, workers
from tertulia.stores.postgres.lapse import Lapse
from tertulia.stores.postgres.workers import ABANDONED
from tertulia.testing.store_changes import append, birth, record

KEEPER = """
import asyncio, os, sys
from tertulia.stores import PostgresStore
from tertulia.testing.store_changes import append, birth, record

async def main():
    store = PostgresStore(sys.argv[1])
    store.on_lapse(lambda lapsed: os.write(1, f"lapsed {lapsed}\\n".encode()))
    for n in range(int(sys.argv[2])):
        row = await store.commit(birth(f"s{n}"))
        held = {"holder": store.worker, "epoch": 1, "open_turn": 1}
        await store.commit(append(row, record(1), after=held))
    await store.take_seat("a place")
    os.write(1, (store.worker.hex() + "\\n").encode())
    await asyncio.to_thread(sys.stdin.read)
    await store.close()

asyncio.run(main())
"""


@asynccontextmanager
async def opened(address: str) -> AsyncGenerator[PostgresStore]:
    store = PostgresStore(address)
    try:
        await store.find(None, "s")
        yield store
    finally:
        await store.close()


@pytest.fixture
def store(postgres: str) -> Iterator[PostgresStore]:
    made = PostgresStore(postgres)
    yield made
    doors.call(made.close())


async def execute(address: str, text: str, *values: Any) -> list[driver.Row]:
    db = await driver.connect(address)
    try:
        return await db.fetch(text, *values)
    finally:
        await db.close()


def take(store: PostgresStore, row: SessionRow, worker: bytes | None = None) -> Change:
    """The change that begins a turn."""
    held = {"holder": worker or store.worker, "epoch": row.epoch + 1, "open_turn": row.seq + 1}
    return append(row, record(row.seq + 1), after=held)


def end(row: SessionRow) -> Change:
    """The change that ends a turn."""
    return append(row, record(row.seq + 1), after={"holder": None, "open_turn": None})


# -- workers


async def test_a_store_on_a_database_keeps_the_promise_and_others_do_not(
    store: PostgresStore,
) -> None:
    assert isinstance(store, Clustered)
    assert not isinstance(open_store("memory:"), Clustered)


async def test_every_worker_is_listed_with_what_it_says_of_itself(
    postgres: str, store: PostgresStore
) -> None:
    before = time.time()
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()

    def load() -> dict[str, Any]:
        loop.call_soon_threadsafe(asked.set)
        return {"turns": 3, "clients": 40}

    store.report_load(load)
    await store.advertise("http://10.0.0.1:8080", "hush")
    async with opened(postgres + "?lease=7") as other:
        first, second = await store.workers()
        assert (first.worker, second.worker) == (store.worker, other.worker)
        assert (first.process, first.alive, first.lease, second.lease) == (os.getpid(), True, 5, 7)
        assert (first.url, first.secret) == ("http://10.0.0.1:8080", "hush")
        assert (second.url, second.secret, second.load) == (None, None, {})
        assert 0 <= first.silent < 5
        assert before - 5 < first.since / 1e6 <= second.since / 1e6 < time.time() + 5
        assert "hush" not in f"{first!r} {first} {[first]}"
        await asked.wait()
        found = await other.find_worker(store.worker)
        assert found is not None
        assert found.load == {"turns": 3, "clients": 40}
    assert [each.worker for each in await store.workers()] == [store.worker]
    assert await store.find_worker(other.worker) is None


async def test_what_is_advertised_stays_so_over_a_lost_connection(postgres: str) -> None:
    with proxied(postgres) as proxy:
        store = PostgresStore(proxy.url)
        await store.advertise("http://a", "hush")
        epoch = "SELECT epoch FROM tertulia.workers"
        proxy.cut()
        while (await execute(postgres, epoch))[0][0] < 2:
            await asyncio.sleep(0.02)
        found = await store.find_worker(store.worker)
        assert found is not None
        assert (found.url, found.secret) == ("http://a", "hush")
        await store.advertise(None, None)
        found = await store.find_worker(store.worker)
        assert found is not None
        assert (found.url, found.secret) == (None, None)
        await store.close()


async def test_an_address_that_cannot_be_kept_is_refused(store: PostgresStore) -> None:
    await store.advertise("http://a", "hush")
    for url, secret in (("", None), ("a\0b", None), ("http://a", "\0"), ("\ud800", None)):
        with pytest.raises(InvalidInput):
            await store.advertise(url, secret)
        found = await store.find_worker(store.worker)
        assert found is not None
        assert (found.url, found.secret) == ("http://a", "hush")


@pytest.mark.parametrize(
    "answer", [{"x": object()}, ["list"], {"x": "y" * 5_000}, ZeroDivisionError("oh")]
)
async def test_a_load_that_cannot_be_told_does_not_stop_the_heartbeat(
    postgres: str, answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    store = PostgresStore(postgres + "?lease=2")
    asked: list[int] = []

    def load() -> dict[str, Any]:
        asked.append(1)
        if isinstance(answer, Exception):
            raise answer
        return answer

    beat = await heartbeat(store)
    store.report_load(load)
    while len(asked) < 3:
        await asyncio.sleep(0.02)
    assert await heartbeat(store) > beat
    complaints = [each for each in caplog.records if "load" in each.getMessage()]
    assert [each.levelno for each in complaints] == [logging.ERROR]
    await store.close()


async def heartbeat(store: PostgresStore) -> Any:
    async def ask(db: driver.Connection) -> Any:
        found = await db.fetch("SELECT heartbeat FROM tertulia.workers")
        return found[0][0]

    return await store._ask(ask)  # pyright: ignore[reportPrivateUsage]


async def test_a_worker_whose_row_was_lost_registers_again(
    postgres: str, store: PostgresStore
) -> None:
    await store.find(None, "s")
    await execute(postgres, "DELETE FROM tertulia.workers")
    while await store.find_worker(store.worker) is None:
        await asyncio.sleep(0.02)


async def test_what_survives_a_crash_is_told(store: PostgresStore) -> None:
    found = await store.durability()
    assert found["synchronous_commit"] == "on"
    assert found["synchronous_standbys"] == "none"
    assert found["server_version"].split(".")[0].isdigit()


# -- leases


@pytest.mark.parametrize("lease", ["1.9", "301", "x", "nan", ""])
def test_a_lease_that_is_too_short_or_too_long_is_refused(lease: str) -> None:
    with pytest.raises(ConfigurationError, match="lease"):
        open_store(f"postgresql://u@h/d?lease={lease}")


def test_the_lease_is_of_the_address() -> None:
    assert PostgresStore("postgresql://u@h/d").lease == 5.0
    assert PostgresStore("postgresql://u@h/d?lease=60&direct=postgresql://u@h/d").lease == 60.0


class Told:
    """Waits for what `on_lapse` tells, in order."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._told: asyncio.Queue[bool] = asyncio.Queue()
        self.count = 0

    def __call__(self, lapsed: bool) -> None:
        self.count += 1
        self._loop.call_soon_threadsafe(self._told.put_nowait, lapsed)

    async def next(self) -> bool:
        return await self._told.get()


async def test_a_worker_is_told_in_time_that_it_could_not_renew_and_when_it_could(
    postgres: str,
) -> None:
    with proxied(postgres) as proxy:
        store = PostgresStore(proxy.url + "?lease=2")
        told = Told()
        broken: list[bool] = []

        def breaks(lapsed: bool) -> None:
            broken.append(lapsed)
            raise RuntimeError

        undone = Told()
        store.on_lapse(breaks)
        store.on_lapse(told)
        store.on_lapse(undone)()
        await store.find(None, "s")
        proxy.hold()
        assert await told.next()
        late = Told()
        store.on_lapse(late)
        assert await late.next()
        proxy.let_go()
        assert not await told.next()
        assert not await late.next()
        assert (set(broken), undone.count, told.count) == ({True}, 0, 2)
        await store.close()


def test_a_lease_counts_from_when_its_renewal_was_sent() -> None:
    told: list[bool] = []
    lapse = Lapse(100.0)
    undo = lapse.on_lapse(told.append)
    lapse.judge()
    lapse.renewed(time.monotonic() - 70)
    assert told == []
    lapse.renewed(time.monotonic() - 81)
    assert told == [True]
    lapse.renewed(time.monotonic() - 90)
    assert told == [True]
    lapse.renewed(time.monotonic() - 70)
    assert told == [True, False]
    undo()
    undo()
    lapse.renewed(time.monotonic() - 90)
    assert told == [True, False]


async def test_a_worker_that_was_stopped_for_longer_than_its_lease_is_told_first(
    postgres: str, store: PostgresStore
) -> None:
    with child(KEEPER, postgres + "?lease=2", "1") as keeper:
        worker = bytes.fromhex(line(keeper))
        os.kill(keeper.pid, signal.SIGSTOP)
        found = await store.find_worker(worker)
        while found is not None and found.silent < 2:
            await asyncio.sleep(0.05)
            found = await store.find_worker(worker)
        assert not await store.worker_is_alive(worker)
        assert [row.id for row in await store.abandoned()] == ["s0"]
        os.kill(keeper.pid, signal.SIGCONT)
        assert [line(keeper), line(keeper)] == ["lapsed True", "lapsed False"]
        assert await store.worker_is_alive(worker)
        assert await store.abandoned() == []


# -- seats


async def test_a_seat_is_of_who_took_it_first_until_it_is_left(
    postgres: str, store: PostgresStore
) -> None:
    async with opened(postgres) as other:
        assert await store.take_seat("place") == store.worker
        assert await store.take_seat("place") == store.worker
        assert await other.take_seat("place") == store.worker
        await other.leave_seat("place")
        assert await other.take_seat("place") == store.worker
        assert {each.worker: each.seats for each in await other.workers()} == {
            store.worker: 1,
            other.worker: 0,
        }
        assert await other.take_seat("another") == other.worker
        await store.leave_seat("place")
        assert await other.take_seat("place") == other.worker


async def test_a_seat_is_taken_over_from_who_is_named_and_from_nobody_else(
    postgres: str, store: PostgresStore
) -> None:
    async with opened(postgres) as other, opened(postgres) as third:
        await store.take_seat("place")
        assert await other.take_seat("place", over=third.worker) == store.worker
        assert await other.take_seat("place", over=store.worker) == other.worker
        assert await third.take_seat("place", over=store.worker) == other.worker


async def test_the_seat_of_a_worker_that_left_or_was_killed_is_free(
    postgres: str, store: PostgresStore
) -> None:
    async with opened(postgres) as other:
        await other.take_seat("other place")
    assert await store.take_seat("other place") == store.worker
    with child(KEEPER, postgres + "?lease=2", "0") as keeper:
        worker = bytes.fromhex(line(keeper))
        assert await store.take_seat("a place") == worker
        keeper.kill()
        while await store.take_seat("a place") != store.worker:
            await asyncio.sleep(0.05)


async def test_of_many_who_take_one_seat_at_once_all_hear_of_the_same_one(
    postgres: str, store: PostgresStore
) -> None:
    stores = [PostgresStore(postgres) for _ in range(4)]
    await asyncio.gather(*(each.find(None, "s") for each in stores))
    for n in range(20):
        taken = await asyncio.gather(*(each.take_seat(f"p{n}") for each in stores * 3))
        assert len(set(taken)) == 1
    for each in stores:
        await each.close()


@pytest.mark.parametrize("place", ["", "a\0b", "\ud800"])
async def test_a_place_that_cannot_be_kept_is_refused(store: PostgresStore, place: str) -> None:
    with pytest.raises(InvalidInput, match="place"):
        await store.take_seat(place)
    with pytest.raises(InvalidInput, match="place"):
        await store.leave_seat(place)


async def test_a_place_may_be_long(postgres: str, store: PostgresStore) -> None:
    place = "ü" * 1_500
    async with opened(postgres) as other:
        assert await store.take_seat(place) == store.worker
        assert await other.take_seat(place) == store.worker
        assert await other.take_seat(place + "x") == other.worker


async def test_what_long_dead_workers_left_is_forgotten(postgres: str) -> None:
    async with opened(postgres) as store:
        await store.take_seat("mine")
    gone, dead, silent = b"g" * 16, b"d" * 16, b"s" * 16
    text = """
        INSERT INTO tertulia.workers (worker, lock, epoch, host, process, lease, since, heartbeat)
        SELECT w, 1, 1, 'h', 1, 5, clock_timestamp(), clock_timestamp() - a * interval '1 minute'
        FROM unnest($1::bytea[], $2::float8[]) AS x (w, a)
    """
    await execute(postgres, text, [dead, silent], [3_000.0, 30.0])
    text = "INSERT INTO tertulia.seats SELECT $1 || n, $2 FROM generate_series(1, $3::int) n"
    for worker, count in ((gone, 2_500), (dead, 10), (silent, 5)):
        await execute(postgres, text, worker.decode(), worker, count)
    async with opened(postgres) as store:
        await store.take_seat("mine")
        counts = "SELECT worker, count(*) FROM tertulia.seats GROUP BY worker"
        left: dict[bytes, int] = {gone: 1}
        while left.keys() & {gone, dead}:
            left = {each[0]: each[1] for each in await execute(postgres, counts)}
        assert left == {silent: 5, store.worker: 1}
        while len(await store.workers()) > 2:
            await asyncio.sleep(0.02)
        assert {each.worker for each in await store.workers()} == {store.worker, silent}


# -- abandoned turns


async def test_the_sessions_of_a_worker_that_was_killed_are_found(
    postgres: str, store: PostgresStore
) -> None:
    mine = await store.commit(take(store, await store.commit(birth("mine"))))
    with child(KEEPER, postgres + "?lease=2", "7") as keeper:
        worker = bytes.fromhex(line(keeper))
        assert await store.abandoned() == []
        held = {each.worker: each.held for each in await store.workers()}
        assert held == {store.worker: 1, worker: 7}
        keeper.kill()
        keeper.wait()
        while len(found := await store.abandoned()) < 7:
            await asyncio.sleep(0.05)
    assert {row.id for row in found} == {f"s{n}" for n in range(7)}
    assert {row.holder for row in found} == {worker}
    assert len(await store.abandoned(3)) == 3
    ended = await store.commit(end(found[0]))
    await store.commit(take(store, found[1]))
    assert {row.id for row in await store.abandoned()} == {row.id for row in found[2:]}
    await store.commit(end(mine))
    assert ended.holder is None


async def test_the_sessions_of_a_worker_without_a_row_are_found(store: PostgresStore) -> None:
    row = await store.commit(birth("s"))
    row = await store.commit(take(store, row, b"nobody" + bytes(10)))
    assert await store.abandoned() == [row]
    row = await store.commit(end(row))
    assert await store.abandoned() == []


async def test_a_session_that_is_born_within_a_turn_is_found_and_a_suspended_one_is_not(
    store: PostgresStore,
) -> None:
    change = birth("s", holder=b"x" * 16, open_turn=1, epoch=1)
    row = await store.commit(change)
    assert await store.abandoned() == [row]
    row = await store.commit(append(row, record(1), after={"holder": None}))
    assert row.suspended
    assert await store.abandoned() == []


async def test_what_is_held_is_known_after_thousands_of_turns(
    postgres: str, store: PostgresStore
) -> None:
    rows = [await store.commit(birth(f"s{n}")) for n in range(20)]
    for _ in range(10):
        rows = await asyncio.gather(*(store.commit(take(store, row)) for row in rows))
        [mine] = await store.workers()
        assert mine.held == 20
        rows = await asyncio.gather(*(store.commit(end(row)) for row in rows))
    assert await execute(postgres, "SELECT * FROM tertulia.held") == []


async def test_abandoned_turns_are_found_by_keys_however_many_sessions_there_are(
    postgres: str, store: PostgresStore
) -> None:
    await store.commit(take(store, await store.commit(birth("s")), b"x" * 16))
    text = """
        INSERT INTO tertulia.sessions (uid, app, id, base, branch, seq, digest, epoch, visible,
            marks, requests, input_tokens, output_tokens, status, created, active)
        SELECT n::text::bytea, '', n::text, 0, 0, 0, '', 0, 0, 0, 0, 0, 0, 'open', 1, 1
        FROM generate_series(1, 2000) n
    """
    await execute(postgres, text)
    await execute(postgres, "ANALYZE tertulia.sessions")
    plan = [each[0] for each in await execute(postgres, f"EXPLAIN {ABANDONED}", 100, 0)]
    assert [step for step in plan if "Scan" in step and "on sessions" in step]
    assert not [step for step in plan if "Seq Scan on sessions" in step]


async def test_after_a_restart_of_the_server_everybody_has_the_lease_to_come_back(
    postgres: str, store: PostgresStore
) -> None:
    before, after = b"b" * 16, b"a" * 16
    for name, worker in (("before", before), ("after", after)):
        await store.commit(take(store, await store.commit(birth(name)), worker))
    text = """
        INSERT INTO tertulia.workers (worker, lock, epoch, host, process, lease, since, heartbeat)
        SELECT w, n, 1, 'h', 1, 300, pg_postmaster_start_time() + d * interval '1 second',
            clock_timestamp() - interval '100 seconds'
        FROM unnest($1::bytea[], $2::bigint[], $3::float8[]) AS x (w, n, d)
    """
    await execute(postgres, text, [before, after], [1, 2], [-1.0, 0.0])
    assert await store.worker_is_alive(before)
    assert not await store.worker_is_alive(after)
    assert [row.id for row in await store.abandoned()] == ["after"]


# -- bells


async def test_bells_that_are_carried_are_not_rung_by_the_server(
    postgres: str, store: PostgresStore
) -> None:
    carried: asyncio.Queue[set[int]] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    answers: list[Any] = [True, False, RuntimeError("no")]

    def carrier(sessions: Collection[int]) -> bool:
        answer = answers.pop(0)
        loop.call_soon_threadsafe(carried.put_nowait, set(sessions))
        if isinstance(answer, Exception):
            raise answer
        return answer

    def hear(_connection: object, _process: int, _channel: str, payload: str) -> None:
        heard.put_nowait(payload)

    db, heard = await driver.connect(postgres), asyncio.Queue[str]()
    async with opened(postgres) as other:
        row = await store.commit(birth("s"))
        await db.add_listener("tertulia", hear)
        store.carry_bells(carrier)
        for seq in (1, 2, 3):
            row = await store.commit(append(row, record(seq)))
            assert await carried.get() == {row.key}
        name = store.worker.hex()
        assert [await heard.get(), await heard.get()] == [f"{name}:{row.key}"] * 2
        store.carry_bells(None)
        await store.commit(append(row, record(4)))
        assert await heard.get() == f"{name}:{row.key}"
        assert await other.find(None, "s") is not None
    await db.close()


async def test_a_bell_that_a_peer_carried_rings_here(store: PostgresStore) -> None:
    rung: list[int] = []
    rows = [await store.commit(birth(f"s{n}")) for n in range(3)]
    undo = [store.watch(row.key, lambda key=row.key: rung.append(key)) for row in rows]
    await store.find(None, "s0")
    rung.clear()
    store.ring_here([rows[1].key])
    assert rung == [rows[1].key]
    store.ring_here(None)
    assert sorted(rung[1:]) == [row.key for row in rows]
    for each in undo:
        each()


async def test_abandoned_turns_are_given_by_key_and_page_by_page(store: PostgresStore) -> None:
    rows = [await store.commit(birth(f"s{n}")) for n in range(6)]
    for n, row in enumerate(rows):
        await store.commit(take(store, row, bytes([n % 2]) * 16))
    first = await store.abandoned(4)
    assert [row.id for row in first] == ["s0", "s1", "s2", "s3"]
    assert [row.id for row in await store.abandoned(4, after=first[-1].key)] == ["s4", "s5"]


# -- what is noted wrongly, and another server


async def test_a_note_of_a_session_that_is_held_otherwise_is_tidied_away(
    postgres: str, store: PostgresStore
) -> None:
    row = await store.commit(take(store, await store.commit(birth("mine"))))
    free = await store.commit(birth("free"))
    db = await driver.connect(postgres)
    try:
        wrong = [(store.worker, free.key), (b"x" * 16, row.key), (b"y" * 16, 99_999)]
        for each in wrong:
            await db.execute("INSERT INTO tertulia.held (worker, session) VALUES ($1, $2)", *each)
        assert not await workers.forget(db)
        found = await db.fetch("SELECT worker, session FROM tertulia.held")
        assert [tuple(each) for each in found] == [(store.worker, row.key)]
    finally:
        await db.close()


async def test_who_was_at_another_server_has_its_whole_lease_to_come(
    postgres: str, store: PostgresStore
) -> None:
    """As where a standby took over: it runs for long, has no locks and old heartbeats."""
    await store.incarnation()
    db = await driver.connect(postgres)

    async def alive() -> bool:
        await db.execute(
            "INSERT INTO tertulia.workers (worker, lock, epoch, host, process, lease, since, "
            "heartbeat, server) SELECT $1, 1, 1, 'h', 1, 5, now(), now() - interval '1 minute', "
            "pg_postmaster_start_time() - interval '1 day' ON CONFLICT DO NOTHING",
            b"w" * 16,
        )
        return await store.worker_is_alive(b"w" * 16)

    try:
        assert await alive()
        await db.execute("UPDATE tertulia.servers SET seen = seen - interval '10 seconds'")
        assert not await alive()
        await db.execute("DELETE FROM tertulia.servers")
        assert await alive()
    finally:
        await db.close()
