"""Sweepers in processes of their own, around one file or one database: one of them sweeps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.crash.children import Child, child_of
from tests.postgres.proxy import proxied

from tertulia import Runtime
from tertulia.stores.clustering import Clustered
from tertulia.sweeping import DUTY, Sweeper, standing
from tertulia.sweeping.duty import Duty
from tertulia.testing import FrozenClock

RETENTION = {"ttl_days": 1, "auto_prune": True}
PROGRAM = str(Path(__file__).parent / "programs" / "sweeps")
SECONDS = 0.1
DELETES = ["deletes a", "deletes b", "deletes c"]


@pytest.fixture(params=["sqlite", "postgres"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store for several processes."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/store.db"
    return str(request.getfixturevalue("postgres"))


@contextmanager
def sweeper_of(address: str, *more: str) -> Generator[Child]:
    """A process that sweeps, and has looked whether it should."""
    with child_of(PROGRAM, address, SECONDS, *more) as child:
        assert child.hear() == "looked at tertulia.duty"
        yield child


async def make_due(address: str, names: str) -> None:
    """Sessions that should have been deleted long ago."""
    async with Runtime(address, clock=FrozenClock("2020-01-01")) as runtime:
        for name in names:
            session = runtime.session(name, retention=RETENTION)
            await session.send_message({"role": "user", "content": "hello"})


async def left(runtime: Runtime) -> list[str]:
    return [info.id for info in await runtime.sessions(limit=None)]


async def term(runtime: Runtime) -> int:
    found, _ = await standing(runtime.store, DUTY)
    return found.term


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0.01)


async def test_of_two_sweepers_one_sweeps_and_the_other_goes_on_when_it_is_killed(
    address: str,
) -> None:
    await make_due(address, "abcd")
    with sweeper_of(address, "step") as first, sweeper_of(address) as second:
        assert first.hear() == "page of 4"
        first.tell()
        for name in "abcd":
            assert first.hear() == f"deletes {name}"
        assert first.hear() == "swept 4 True"
        await make_due(address, "ef")
        heard = first.hear()
        while heard != "page of 2":
            first.tell()
            heard = first.hear()
        assert first.kill() == []
        assert [second.hear() for _ in range(3)] == ["deletes e", "deletes f", "swept 2 True"]
    async with Runtime(address) as runtime:
        assert await left(runtime) == []
        assert await term(runtime) == 2
        deleted = [one for one in await runtime.store.receipts() if one.type == "session.deleted"]
        assert len(deleted) == 6


async def test_a_sweeper_of_a_file_that_was_stopped_keeps_the_duty(tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path}/store.db"
    await make_due(address, "abc")
    with sweeper_of(address, "step") as first:
        assert first.hear() == "page of 3"
        first.stop()
        with sweeper_of(address) as second:
            first.go_on()
            first.tell()
            assert [first.hear() for _ in range(4)] == [*DELETES, "swept 3 True"]
            assert second.kill() == []
    async with Runtime(address) as runtime:
        assert await left(runtime) == []
        assert await term(runtime) == 1


async def test_a_sweeper_that_was_stopped_for_longer_than_its_lease_does_nothing_when_it_wakes(
    postgres: str,
) -> None:
    address = f"{postgres}?lease=2"
    await make_due(address, "abc")
    with sweeper_of(address, "step") as first, sweeper_of(address, "step") as second:
        assert first.hear() == "page of 3"
        first.stop()
        assert second.hear() == "page of 3"
        first.go_on()
        first.tell()
        assert first.hear() == "swept 0 False"
        assert first.kill() == []
        async with Runtime(address) as runtime:
            assert await left(runtime) == ["a", "b", "c"]
            assert await term(runtime) == 2
            second.tell()
            assert [second.hear() for _ in range(3)] == DELETES


async def test_a_sweeper_that_is_cut_off_gives_way_before_another_takes_over(
    postgres: str,
) -> None:
    loop, told = asyncio.get_running_loop(), asyncio.Queue[bool]()
    with proxied(postgres) as proxy:
        async with Runtime(f"{proxy.url}?lease=2") as cut_off, Runtime(postgres) as other:
            first, second = Duty(cut_off, DUTY), Duty(other, DUTY)
            first.watch_lease()
            store = cut_off.store
            assert isinstance(store, Clustered)

            def tell(lapsed: bool) -> None:
                loop.call_soon_threadsafe(told.put_nowait, lapsed)

            store.on_lapse(tell)
            assert await first.take()
            proxy.hold()
            async with asyncio.timeout(20):
                assert await told.get()
                assert not await first.mine()
                assert not await first.take()
                while not await second.take():
                    await asyncio.sleep(0.01)
                proxy.let_go()
                while await told.get():
                    continue
            assert not await first.mine()
            assert not await first.take()
            assert await second.mine()


async def test_a_turn_of_a_killed_process_is_closed_after_the_grace_and_not_before(
    address: str,
) -> None:
    clock = FrozenClock("2026-01-01")
    with child_of("holds", address, "s") as holder:
        assert holder.hear() == "holds"
        async with Runtime(address, clock=clock) as runtime:
            sweeper = Sweeper(runtime, every=0.01)
            sweeper.start()
            holder.kill()
            await until_dead(runtime)
            clock.advance(2)  # what was read of its life before is not believed any more
            for _ in range(3):
                before = sweeper.last
                await until(lambda before=before: sweeper.last is not before)
            row = await runtime.store.find(None, "s")
            assert row is not None
            assert row.open_turn is not None
            seen = asyncio.ensure_future(watched(runtime))
            clock.advance(61)
            async with asyncio.timeout(20):
                assert await seen == "turn.abandoned"
            await sweeper.close()
            assert await runtime.session("s").verify()


async def until_dead(runtime: Runtime) -> None:
    row = await runtime.store.find(None, "s")
    assert row is not None
    assert row.holder is not None
    async with asyncio.timeout(20):
        while await runtime.store.worker_is_alive(row.holder):
            await asyncio.sleep(0.01)


async def watched(runtime: Runtime) -> str:
    """What comes next in the log of the session."""
    session = runtime.session("s")
    row = await runtime.store.find(None, "s")
    assert row is not None
    async for event in session.follow(after=row.seq):
        return event.type
    return "nothing"
