"""The sweeper of one process, and the duty that it must have."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tertulia import Runtime
from tertulia.admission import REQUEST_TTL
from tertulia.clock import MICROSECONDS
from tertulia.errors import ConfigurationError, StoreCorrupt, StoreUnavailable
from tertulia.stores import SQLiteStore
from tertulia.stores.base import Request, SessionRow
from tertulia.sweeping import DUTY, Sweeper, leftovers, standing, sweeper
from tertulia.sweeping.duty import KIND, Duty
from tertulia.testing import FrozenClock

RETENTION = {"ttl_days": 1, "auto_prune": True}
Logged = Callable[[str], Awaitable[None]]
HELLO = {"role": "user", "content": "hello"}


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/store.db"


@asynccontextmanager
async def sweeping(runtime: Runtime, **options: Any) -> AsyncGenerator[Sweeper]:
    """Sweep all the time."""
    made = Sweeper(runtime, **{"every": 0.01, **options})
    made.start()
    try:
        yield made
    finally:
        await made.close()


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0.001)


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Logged:
    """Waits until a sweep has said that it did something."""
    caplog.set_level(logging.INFO, "tertulia.sweeping")

    async def wait(what: str) -> None:
        await until(lambda: f": {what} (" in caplog.text)

    return wait


async def sweeps(of: Sweeper, count: int = 1) -> None:
    """So many whole sweeps, begun from now on."""
    for _ in range(count + 1):
        before = of.last
        await until(lambda before=before: of.last is not before)


async def row_of(runtime: Runtime, name: str) -> SessionRow | None:
    return await runtime.store.find(None, name)


async def leave_a_turn(address: str, name: str) -> None:
    """What a process leaves behind that ends in the middle of a turn."""
    gone = Runtime(SQLiteStore(address.removeprefix("sqlite:///")))
    turn = gone.session(name).turn("question")
    await turn.__aenter__()
    await gone.store.close()
    left.append((gone, turn))


left: list[Any] = []


@pytest.fixture(autouse=True)
def nothing_kept() -> Generator[None]:
    yield
    left.clear()


# -- what is swept


@pytest.mark.parametrize("store", ["memory:", "file"])
async def test_what_is_due_is_done_at_once_and_again_later(
    store: str, address: str, clock: FrozenClock, logged: Logged
) -> None:
    async with Runtime(address if store == "file" else store, clock=clock) as runtime:
        for name in ("a", "kept"):
            options = {"retention": RETENTION} if name == "a" else {}
            await runtime.session(name, **options).send_message(HELLO)
        clock.advance(days=2)
        async with sweeping(runtime):
            await logged("delete 1")
            idle = {"idle_days": 1, "auto_prune": True}
            await runtime.session("b", retention=idle).send_message(HELLO)
            clock.advance(days=2)
            await logged("end 1")
        assert [info.id for info in await runtime.sessions()] == ["kept", "b"]


async def test_a_session_in_a_turn_is_left_alone_until_the_turn_has_ended(
    address: str, clock: FrozenClock, logged: Logged
) -> None:
    async with Runtime(address, clock=clock) as runtime, Runtime(address, clock=clock) as other:
        session = runtime.session("a", retention=RETENTION)
        async with sweeping(other) as running, session.turn("question"):
            clock.advance(days=2)
            await sweeps(running, 2)
            assert await row_of(runtime, "a") is not None
        clock.advance(days=2)
        async with sweeping(other):
            await logged("delete 1")


async def test_what_retention_only_says_is_left_and_no_sweep_looks_at_all_of_it(
    address: str, clock: FrozenClock, monkeypatch: pytest.MonkeyPatch, logged: Logged
) -> None:
    monkeypatch.setattr(sweeper, "ROWS", 200)
    async with Runtime(address, clock=clock) as runtime:
        for number in range(201):
            said = {"ttl_days": 1, "auto_prune": number == 200}
            await runtime.session(f"s{number}", retention=said).send_message(HELLO)
        clock.advance(days=2)
        async with sweeping(runtime, every=60) as running:
            await until(lambda: running.last is not None)
            assert running.last is not None
            assert (running.last.done, running.last.whole) == ({}, False)
        async with sweeping(runtime):
            await logged("delete 1")
        assert len(await runtime.sessions(limit=None)) == 200


async def test_old_idempotency_records_are_forgotten(clock: FrozenClock, logged: Logged) -> None:
    async with Runtime("memory:", clock=clock) as runtime:
        agent = runtime.session("a")
        await agent.send_message(HELLO)
        row = await row_of(runtime, "a")
        assert row is not None
        await _remember(runtime, row, clock.now())
        clock.advance(REQUEST_TTL / MICROSECONDS + 1)
        async with sweeping(runtime):
            await logged("forget 1")
        assert await runtime.store.request(row.key, "key") is None


async def _remember(runtime: Runtime, row: SessionRow, now: int) -> None:
    from tertulia.drafting import Draft

    draft = Draft(row, now=now, salt=runtime.ids.salt)
    draft.add("app.note", {})
    draft.request = Request(key="key", digest=b"", turn=1, status="done", result=None, time=now)
    await runtime.store.commit(draft.change())


# -- turns that were left open


async def test_a_turn_that_was_left_can_be_resumed_for_the_grace_and_is_closed_then(
    address: str, clock: FrozenClock, logged: Logged
) -> None:
    await leave_a_turn(address, "a")
    async with Runtime(address, clock=clock) as runtime, sweeping(runtime, grace=60) as running:
        await sweeps(running, 2)
        clock.advance(59)
        await sweeps(running, 2)
        row = await row_of(runtime, "a")
        assert row is not None
        assert row.open_turn is not None
        clock.advance(2)
        await logged("close 1")
        session = runtime.session("a")
        closed = (await session.events(limit=1))[0]
        assert (closed.type, closed.turn) == ("turn.abandoned", row.open_turn)
        assert await session.verify()


async def test_a_turn_that_waits_for_an_approval_is_not_closed(
    address: str, clock: FrozenClock
) -> None:
    async with Runtime(address, clock=clock) as runtime:
        await _suspend(runtime, "a")
        async with sweeping(runtime, grace=0) as running:
            clock.advance(3_600)
            await sweeps(running, 2)
        row = await row_of(runtime, "a")
        assert row is not None
        assert row.suspended


async def _suspend(runtime: Runtime, name: str) -> None:
    call: dict[str, Any] = {"id": "c1", "name": "refund", "arguments": {}}
    turn = runtime.session(name).turn("question")
    running = await turn.__aenter__()
    await running.add_message({"role": "assistant", "content": "", "tool_calls": [call]})
    await running.suspend()
    running.leave_context()


async def test_all_that_was_left_is_found_a_page_at_a_time(
    address: str, clock: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leftovers, "PAGE", 2)
    monkeypatch.setattr(sweeper, "ROWS", 2)
    async with Runtime(address, clock=clock) as runtime:
        for number in range(7):
            name = f"s{number}"
            if number in (0, 3, 6):
                await leave_a_turn(address, name)
            else:
                await runtime.session(name).send_message(HELLO)
        async with sweeping(runtime, grace=60) as running:
            await sweeps(running, 4)
            clock.advance(61)
            await sweeps(running, 4)
            clock.advance(61)
            await sweeps(running, 4)
        for name in ("s0", "s3", "s6"):
            row = await row_of(runtime, name)
            assert row is not None
            assert row.open_turn is None


# -- the duty


async def test_one_worker_has_the_duty_until_it_gives_it_back(
    address: str, clock: FrozenClock
) -> None:
    async with Runtime(address, clock=clock) as one, Runtime(address, clock=clock) as other:
        first, second = Duty(one, "sweep"), Duty(other, "sweep")
        assert await first.take()
        assert not await second.take()
        assert await first.take()
        assert (await first.mine(), await second.mine()) == (True, False)
        await first.leave()
        assert not await first.mine()
        assert await second.take()
        found, _ = await standing(other.store, "sweep")
        assert (found.worker, found.term) == (other.store.worker.hex(), 2)


async def test_the_duty_of_a_worker_that_is_gone_is_free(address: str) -> None:
    async with Runtime(address) as other:
        async with Runtime(address) as gone:
            first = Duty(gone, "sweep")
            assert await first.take()
        assert await Duty(other, "sweep").take()


async def test_two_sweepers_of_one_runtime_do_not_both_have_it(clock: FrozenClock) -> None:
    async with Runtime("memory:", clock=clock) as runtime:
        first, second = Duty(runtime, "sweep"), Duty(runtime, "sweep")
        assert await first.take()
        assert not await second.take()
        del first
        assert await second.take()


async def test_who_lost_the_duty_knows_it_after_a_second(address: str, clock: FrozenClock) -> None:
    async with Runtime(address, clock=clock) as one, Runtime(address, clock=clock) as other:
        first = Duty(one, "sweep")
        assert await first.take()
        found, version = await standing(other.store, "sweep")
        await other.store.put_entity(KIND, "sweep", b"{}", version)
        assert found.term == 1
        assert await first.mine()
        clock.advance(1)
        assert not await first.mine()
        assert await first.take()
        await other.store.put_entity(KIND, "sweep", b"{}", version + 2)
        await first.leave()
        assert (await standing(other.store, "sweep"))[0].worker is None


async def test_a_row_that_cannot_be_read_is_told_and_nobody_sweeps(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with Runtime("memory:") as runtime:
        await runtime.store.put_entity(KIND, DUTY, b"nonsense", 0)
        with pytest.raises(StoreCorrupt, match="cannot be read"):
            await standing(runtime.store, DUTY)
        async with sweeping(runtime) as running:
            await until(lambda: "the sweep failed" in caplog.text)
            assert running.last is None


# -- life


async def test_a_sweep_that_fails_is_logged_and_the_next_one_works(
    clock: FrozenClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with Runtime("memory:", clock=clock) as runtime:
        with failing(runtime.store, "drop_requests", StoreUnavailable("the disk is full")):
            async with sweeping(runtime) as running:
                await until(lambda: "the disk is full" in caplog.text)
                assert running.last is None
        async with sweeping(runtime) as running:
            await until(lambda: running.last)


@contextmanager
def failing(store: Any, name: str, error: Exception) -> Generator[None]:
    async def fails(*_: object) -> None:
        raise error

    setattr(store, name, fails)
    yield
    delattr(store, name)


async def test_a_sweep_that_did_something_is_one_line_of_the_log(
    clock: FrozenClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tertulia.sweeping")
    async with Runtime("memory:", clock=clock) as runtime:
        await runtime.session("a", retention=RETENTION).send_message(HELLO)
        clock.advance(days=2)
        async with sweeping(runtime) as running:
            await sweeps(running, 3)
    lines = [record.getMessage() for record in caplog.records]
    assert [line.partition(" (")[0] for line in lines] == ["sweep 1: delete 1"]


async def test_a_store_that_is_closed_ends_the_sweeper() -> None:
    runtime = Runtime("memory:")
    async with sweeping(runtime) as running:
        await until(lambda: running.last)
        await runtime.close()
        await until(lambda: running.ended)


async def test_a_sweeper_that_is_never_to_sweep_starts_nothing() -> None:
    async with Runtime("memory:") as runtime:
        for every in (0, None):
            running = Sweeper(runtime, every=every)
            running.start()
            assert running.ended
            await running.close()
        assert await runtime.store.entity(KIND, DUTY) is None


@pytest.mark.parametrize(("said", "seconds"), [("", 60.0), ("0", None), ("2.5", 2.5)])
def test_the_environment_says_how_often(
    said: str, seconds: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERTULIA_SWEEP", said)
    assert sweeper.configured() == seconds


@pytest.mark.parametrize("name", ["TERTULIA_SWEEP", "TERTULIA_SWEEP_GRACE"])
@pytest.mark.parametrize("said", ["often", "-1", "nan", "inf"])
async def test_what_is_no_number_of_seconds_is_refused(
    name: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, said)
    async with Runtime("memory:") as runtime:
        with pytest.raises(ConfigurationError, match=f"{name} is '{said}'"):
            Sweeper(runtime)
