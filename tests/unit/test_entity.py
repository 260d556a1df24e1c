"""Entities: one at a time, durable, rolled back deeply, re-entrant."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tertulia import Runtime, doors, host
from tertulia.entity import Entity, places, query
from tertulia.entity.places import MAX_WAITERS
from tertulia.errors import (
    InvalidInput,
    SessionBusy,
    StoreCorrupt,
    TurnTimeout,
    UsageError,
    VersionConflict,
)
from tertulia.stores import MemoryStore, SQLiteStore


async def breath() -> None:
    """Let every other task go on."""
    for _ in range(9):
        await asyncio.sleep(0)


class Counter(Entity):
    """What most tests count with; it gives others every chance to get between."""

    async def add(self, amount: int = 1) -> int:
        count = self.state.get("count", 0)
        await breath()
        self.state["count"] = count + amount
        return self.state["count"]

    async def add_each(self, *amounts: int) -> list[int]:
        return [await self.add(amount) for amount in amounts]

    async def add_at_once(self, *amounts: int) -> list[int]:
        return list(await asyncio.gather(*(self.add(amount) for amount in amounts)))

    async def add_and_fail(self, amount: int) -> None:
        await self.add(amount)
        raise RuntimeError("no")

    async def noted(self, note: Any) -> list[Any]:
        self.state.setdefault("notes", []).append(note)
        return self.state["notes"]

    async def note_and_fail(self, note: Any) -> None:
        self.state["notes"].append(note)
        raise RuntimeError("no")

    async def look(self) -> dict[str, Any]:
        return dict(self.state)

    @query
    async def value(self) -> int:
        await breath()
        return self.state.get("count", 0)


@pytest.fixture(params=["memory", "sqlite"])
async def runtime(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Runtime]:
    """A runtime on a real store."""
    memory = request.param == "memory"
    store = MemoryStore() if memory else SQLiteStore(str(tmp_path / "entities.db"))
    yield Runtime(store)
    await store.close()


async def version(runtime: Runtime, kind: str = "Counter", key: str = "k") -> int:
    found = await runtime.store.entity(kind, key)
    return 0 if found is None else found.version


# -- identity and durability


async def test_state_is_kept_per_class_and_key(runtime: Runtime) -> None:
    class Other(Counter):
        pass

    assert await Counter("k", runtime=runtime).add(2) == 2
    assert await Counter(key="k", runtime=runtime).add(3) == 5
    assert await Counter("l", runtime=runtime).value() == 0
    assert await Other("k", runtime=runtime).value() == 0
    assert (Other.kind, repr(Other("k"))) == ("Other", "Other(key='k')")


async def test_a_class_may_say_under_which_name_it_is_kept(runtime: Runtime) -> None:
    class Renamed(Counter):
        kind = "Counter"

    await Counter("k", runtime=runtime).add(2)
    assert await Renamed("k", runtime=runtime).value() == 2


async def test_state_survives_a_new_store_on_the_same_file(tmp_path: Path) -> None:
    path = str(tmp_path / "entities.db")
    for expected in (1, 2):
        store = SQLiteStore(path)
        assert await Counter("k", runtime=Runtime(store)).add() == expected
        await store.close()


async def test_without_a_runtime_it_lives_in_the_current_one(runtime: Runtime) -> None:
    with host.using(runtime):
        await Counter("k").add()
    assert await Counter("k", runtime=runtime).value() == 1


@pytest.mark.parametrize("key", ["", "a\0b", "x" * 513, None, 3])
def test_a_key_is_printable_text(key: Any) -> None:
    with pytest.raises(InvalidInput, match="the key of an entity"):
        Counter(key)


async def test_only_a_call_that_changed_something_makes_a_new_version(runtime: Runtime) -> None:
    counter = Counter("k", runtime=runtime)
    await counter.look()
    assert await version(runtime) == 0
    await counter.add()
    await counter.add(0)
    await counter.look()
    await counter.value()
    assert await version(runtime) == 1
    await counter.add_each(1, 1, 1)
    assert await version(runtime) == 2


async def test_state_that_was_damaged_is_reported(runtime: Runtime) -> None:
    await runtime.store.put_entity("Counter", "k", b"{nonsense", 0)
    with pytest.raises(StoreCorrupt, match="the state of Counter 'k'"):
        await Counter("k", runtime=runtime).add()


async def test_state_that_was_deleted_in_the_store_begins_anew(runtime: Runtime) -> None:
    counter = Counter("k", runtime=runtime)
    await counter.add()
    await runtime.store.put_entity("Counter", "k", None, 1)
    assert await counter.value() == 0
    assert await counter.add() == 1


# -- one at a time


async def test_calls_of_one_entity_run_one_at_a_time(runtime: Runtime) -> None:
    calls = [Counter("k", runtime=runtime).add() for _ in range(20)]
    assert sorted(await asyncio.gather(*calls)) == list(range(1, 21))
    assert await Counter("k", runtime=runtime).value() == 20


async def test_calls_of_different_entities_do_not_wait_for_each_other(runtime: Runtime) -> None:
    met = asyncio.Barrier(2)

    class Meeting(Entity):
        async def meet(self) -> None:
            async with asyncio.timeout(5):
                await met.wait()

    await asyncio.gather(*(Meeting(key, runtime=runtime).meet() for key in "ab"))


async def test_queries_run_at_the_same_time_as_a_call_and_see_what_was_saved(
    runtime: Runtime,
) -> None:
    started, go_on = asyncio.Event(), asyncio.Event()

    class Slow(Counter):
        async def add_slowly(self) -> None:
            await self.add()
            started.set()
            await go_on.wait()

    slow = Slow("k", runtime=runtime)
    running = asyncio.create_task(slow.add_slowly())
    await started.wait()
    assert await asyncio.gather(slow.value(), slow.value()) == [0, 0]
    go_on.set()
    await running
    assert await slow.value() == 1


async def test_threads_without_a_loop_take_their_turn(runtime: Runtime) -> None:
    def work() -> None:
        for _ in range(10):
            doors.call(Plain("k", runtime=runtime).add())

    class Plain(Entity):
        async def add(self) -> None:
            self.state["count"] = self.state.get("count", 0) + 1

        @query
        async def value(self) -> int:
            return self.state["count"]

    threads = [Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert await Plain("k", runtime=runtime).value() == 40


async def test_too_many_waiters_are_refused(runtime: Runtime) -> None:
    release = asyncio.Event()

    class Held(Entity):
        async def hold(self) -> None:
            await release.wait()

    held = Held("k", runtime=runtime)
    tasks = [asyncio.create_task(held.hold()) for _ in range(MAX_WAITERS + 1)]
    await breath()
    with pytest.raises(SessionBusy, match=f"{MAX_WAITERS} calls wait for Held 'k' already"):
        await held.hold()
    release.set()
    await asyncio.gather(*tasks)


async def test_waiting_ends_at_the_deadline(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = Counter("k", runtime=runtime)
    monkeypatch.setattr(places, "TIMEOUT", 0.0)
    running = asyncio.create_task(counter.add())
    await asyncio.sleep(0)
    with pytest.raises(TurnTimeout, match="Counter 'k' did not become free in 0 s"):
        await counter.add()
    assert await running == 1


async def test_a_caller_that_was_cancelled_holds_up_nobody(runtime: Runtime) -> None:
    counter = Counter("k", runtime=runtime)
    tasks = [asyncio.create_task(counter.add()) for _ in range(3)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    tasks[1].cancel()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert found[2] == 1
    assert isinstance(found[0], asyncio.CancelledError)


async def test_nothing_is_left_of_entities_that_nobody_uses(runtime: Runtime) -> None:
    for number in range(50):
        await Counter(f"k{number}", runtime=runtime).add()
    gc.collect()
    assert len(runtime.registry) == 0


async def test_a_task_that_starts_its_own_successor_remembers_no_more_each_time(
    runtime: Runtime,
) -> None:
    from tertulia.entity import calls

    depths: list[int] = []
    done = asyncio.Event()

    class Chain(Counter):
        async def step(self, left: int) -> None:
            depths.append(len(calls._visits.get()))  # pyright: ignore[reportPrivateUsage]
            if left:
                tasks.append(asyncio.create_task(after(left - 1)))
            else:
                done.set()

    async def after(left: int) -> None:
        await breath()
        await Chain("k", runtime=runtime).step(left)

    tasks: list[asyncio.Task[None]] = []
    await Chain("k", runtime=runtime).step(20)
    await done.wait()
    await asyncio.gather(*tasks)
    assert max(depths) <= 2


# -- failures


async def test_a_failure_takes_back_everything_deeply(runtime: Runtime) -> None:
    counter = Counter("k", runtime=runtime)
    await counter.noted(1)
    with pytest.raises(RuntimeError, match=r"^no$"):
        await counter.note_and_fail(2)
    with pytest.raises(RuntimeError):
        await counter.add_and_fail(5)
    assert await counter.noted(3) == [1, 3]
    assert await counter.look() == {"notes": [1, 3]}


async def test_a_cancelled_call_takes_everything_back(runtime: Runtime) -> None:
    counter = Counter("k", runtime=runtime)
    started = asyncio.Event()

    class Patient(Counter):
        async def wait_for_ever(self) -> None:
            await self.add(7)
            started.set()
            await asyncio.Event().wait()

    patient = Patient("k", runtime=runtime)
    task = asyncio.create_task(patient.wait_for_ever())
    await started.wait()
    task.cancel()
    [found] = await asyncio.gather(task, return_exceptions=True)
    assert isinstance(found, asyncio.CancelledError)
    assert await patient.add(1) == 1
    assert await counter.value() == 0


async def test_a_part_that_failed_and_was_caught_is_taken_back_alone(runtime: Runtime) -> None:
    class Careful(Counter):
        async def try_it(self) -> dict[str, Any]:
            await self.noted("before")
            await self.add(1)
            for fails in (self.add_and_fail(5), self.note_and_fail("bad")):
                with pytest.raises(RuntimeError):
                    await fails
            await self.add(1)
            return await self.look()

    careful = Careful("k", runtime=runtime)
    assert await careful.try_it() == {"notes": ["before"], "count": 2}
    assert await careful.look() == {"notes": ["before"], "count": 2}


async def test_a_part_that_failed_without_a_change_leaves_what_is_held_alone(
    runtime: Runtime,
) -> None:
    class Holding(Counter):
        async def fail(self) -> None:
            raise RuntimeError

        async def hold(self) -> None:
            notes = self.state.setdefault("notes", [])
            with pytest.raises(RuntimeError):
                await self.fail()
            notes.append("still mine")

    holding = Holding("k", runtime=runtime)
    await holding.hold()
    assert await holding.look() == {"notes": ["still mine"]}


async def test_a_lost_race_is_raised_and_nothing_is_written(runtime: Runtime) -> None:
    class Racing(Counter):
        async def lose(self) -> None:
            await runtime.store.put_entity("Racing", "k", b'{"count":100}', 0)
            await self.add()

    racing = Racing("k", runtime=runtime)
    with pytest.raises(VersionConflict) as lost:
        await racing.lose()
    assert (lost.value.expected, lost.value.actual) == (0, 1)
    assert await racing.value() == 100
    assert await racing.add() == 101


async def test_two_processes_on_one_file_lose_no_update(tmp_path: Path) -> None:
    path = str(tmp_path / "entities.db")
    stores = [SQLiteStore(path), SQLiteStore(path)]

    async def insist(counter: Counter) -> None:
        for _ in range(10):
            while True:
                try:
                    await counter.add()
                    break
                except VersionConflict:
                    continue

    await asyncio.gather(*(insist(Counter("k", runtime=Runtime(store))) for store in stores))
    assert await Counter("k", runtime=Runtime(stores[0])).value() == 20
    for store in stores:
        await store.close()


@pytest.mark.parametrize("value", [object(), {1, 2}, float("nan"), {1: 2}, b"x"])
async def test_what_is_no_json_is_refused_when_set_and_when_found_at_the_end(value: Any) -> None:
    class Careless(Counter):
        async def put(self) -> None:
            self.state["x"] = value

        async def smuggle(self) -> None:
            self.state["notes"] = []
            self.state["notes"].append(value)

        async def smuggle_and_fail(self) -> None:
            await self.noted(1)
            self.state["notes"].append(value)
            raise RuntimeError

        async def recover(self) -> dict[str, Any]:
            with pytest.raises(RuntimeError):
                await self.smuggle_and_fail()
            return await self.look()

    runtime = Runtime(MemoryStore())
    careless = Careless("k", runtime=runtime)
    with pytest.raises(InvalidInput, match="the state value of 'x'"):
        await careless.put()
    with pytest.raises(InvalidInput):
        await careless.smuggle()
    assert await careless.recover() == {}
    assert await careless.look() == {}


@pytest.mark.parametrize("key", ["", 3, None, "a\0"])
async def test_a_state_key_is_printable_text(key: Any) -> None:
    class Careless(Entity):
        async def put(self) -> None:
            self.state[key] = 1

    with pytest.raises(InvalidInput, match="state key"):
        await Careless("k", runtime=Runtime(MemoryStore())).put()


# -- isolation


async def test_nothing_that_goes_in_or_out_is_an_alias_of_the_state(runtime: Runtime) -> None:
    counter = Counter("k", runtime=runtime)

    class Giver(Counter):
        async def put(self, value: Any) -> None:
            self.state["x"] = value
            value.append("later")

        async def inside(self) -> list[Any]:
            mine = await self.noted(1)
            mine.append("outside")
            both = await self.pair()
            both[0].append("outside")
            return await self.noted(2)

        async def pair(self) -> tuple[list[Any], int]:
            return self.state["notes"], 1

        async def all(self) -> Any:
            return self.state

    notes = await counter.noted({"a": 1})
    notes.append("outside")
    notes[0]["a"] = 2
    assert await counter.look() == {"notes": [{"a": 1}]}
    giver = Giver("k", runtime=runtime)
    await giver.put([1])
    assert await giver.all() == {"x": [1]}
    assert await giver.inside() == [1, 2]


async def test_a_result_that_is_not_part_of_the_state_stays_what_it_is(runtime: Runtime) -> None:
    thing: list[Any] = [object()]
    thing.append(thing)

    class Giver(Entity):
        async def give(self) -> Any:
            return thing

        async def pass_on(self) -> Any:
            return await self.give()

    assert await Giver("k", runtime=runtime).pass_on() is thing


async def test_state_is_a_mapping(runtime: Runtime) -> None:
    class Map(Entity):
        async def play(self) -> None:
            state = self.state
            state.set("a", 1)
            state["b"] = {"c": [1]}
            state["b"]["c"].append(2)
            assert state == {"a": 1, "b": {"c": [1, 2]}}
            assert (list(state), len(state), "a" in state) == (["a", "b"], 2, True)
            assert repr(state) == "State({'a': 1, 'b': {'c': [1, 2]}})"
            assert (state.get("z"), state.get("z", 3)) == (None, 3)
            assert (state.delete("z"), state.delete("a")) == (False, True)
            with pytest.raises(KeyError):
                del state["a"]
            with pytest.raises(KeyError):
                state["a"]
            for key in state:
                del state[key]
            assert not state

    await Map("k", runtime=runtime).play()


async def test_state_exists_inside_of_methods_only(runtime: Runtime) -> None:
    class Leaky(Counter):
        def sync(self) -> int:
            return len(self.state)

        async def _private(self) -> int:
            return len(self.state)

        async def leak(self) -> Any:
            assert self.sync() == await self._private() == 0
            return [self.state]

        async def of_another(self) -> None:
            len(Leaky("l", runtime=runtime).state)

    leaky = Leaky("k", runtime=runtime)
    [state] = await leaky.leak()
    for touch in (leaky.sync, lambda: leaky.state, lambda: state.get("x")):
        with pytest.raises(UsageError, match="inside its public async methods only"):
            touch()
    with pytest.raises(UsageError, match="Leaky 'l'"):
        await leaky.of_another()
    with pytest.raises(UsageError):
        await leaky._private()  # pyright: ignore[reportPrivateUsage]


async def test_a_task_that_outlives_its_call_cannot_touch_the_state(runtime: Runtime) -> None:
    ended = asyncio.Event()
    tasks: list[asyncio.Task[None]] = []

    class Leaky(Counter):
        async def _later(self) -> None:
            await ended.wait()
            self.state["late"] = True

        async def start(self) -> None:
            tasks.append(asyncio.create_task(self._later()))

    leaky = Leaky("k", runtime=runtime)
    await leaky.start()
    ended.set()
    with pytest.raises(UsageError, match="inside its public async methods only"):
        await tasks[0]
    assert await leaky.look() == {}


async def test_methods_of_other_base_classes_are_calls_too(runtime: Runtime) -> None:
    class Mixin:
        async def mixed(self: Any) -> None:
            self.state["mixed"] = True

    class Mixed(Mixin, Entity):
        @staticmethod
        async def aside() -> int:
            return 1

    class More(Mixed):
        async def mixed(self) -> None:
            await super().mixed()
            self.state["more"] = True

    await Mixed("k", runtime=runtime).mixed()
    await More("k", runtime=runtime).mixed()
    assert await Mixed.aside() == 1
    found = await runtime.store.entity("More", "k")
    assert found is not None
    assert (found.value, found.version) == (b'{"mixed":true,"more":true}', 1)


# -- calls inside of calls


async def test_a_method_may_call_another_of_the_same_entity(runtime: Runtime) -> None:
    counter = Counter("k", runtime=runtime)
    assert await counter.add_each(1, 2, 3) == [1, 3, 6]
    assert await version(runtime) == 1


async def test_another_object_of_the_same_entity_joins_as_well(runtime: Runtime) -> None:
    class Twin(Counter):
        async def twice(self) -> dict[str, Any]:
            other = Twin("k", runtime=runtime)
            await other.add()
            await self.add()
            return await other.look()

    assert await Twin("k", runtime=runtime).twice() == {"count": 2}


async def test_calls_that_are_started_side_by_side_run_one_after_the_other(
    runtime: Runtime,
) -> None:
    counter = Counter("k", runtime=runtime)
    assert sorted(await counter.add_at_once(1, 1, 1, 1)) == [1, 2, 3, 4]
    assert await counter.value() == 4
    assert await version(runtime) == 1


async def test_a_call_that_was_started_as_a_task_belongs_to_the_call_and_is_waited_for(
    runtime: Runtime,
) -> None:
    tasks: list[asyncio.Task[int]] = []

    class Eager(Counter):
        async def start(self) -> None:
            tasks.append(asyncio.create_task(self.add()))
            await asyncio.sleep(0)

    eager = Eager("k", runtime=runtime)
    await eager.start()
    assert await version(runtime, "Eager") == 1
    assert await tasks[0] == 1
    assert await eager.value() == 1


async def test_a_task_that_begins_after_the_call_is_a_call_of_its_own(runtime: Runtime) -> None:
    tasks: list[asyncio.Task[int]] = []

    class Eager(Counter):
        async def start(self) -> None:
            tasks.append(asyncio.create_task(self.add()))

    eager = Eager("k", runtime=runtime)
    await eager.start()
    assert await tasks[0] == 1
    assert await eager.add() == 2


async def test_touching_the_state_beside_a_running_part_is_refused(runtime: Runtime) -> None:
    class Hasty(Counter):
        async def hurry(self) -> None:
            task = asyncio.create_task(self.add())
            await asyncio.sleep(0)
            try:
                self.state["count"] = 7
            finally:
                await task

    hasty = Hasty("k", runtime=runtime)
    with pytest.raises(UsageError, match="await it before touching the state"):
        await hasty.hurry()
    assert await hasty.value() == 0


async def test_parts_of_a_call_that_failed_cannot_go_on(runtime: Runtime) -> None:
    tasks: list[asyncio.Task[Any]] = []
    slow = asyncio.Event()

    class Failing(Counter):
        async def linger(self) -> None:
            notes = self.state.setdefault("notes", [])
            await slow.wait()
            notes.append("zombie")

        async def touch(self) -> None:
            await slow.wait()
            self.state["zombie"] = True

        async def fail(self) -> None:
            tasks.append(asyncio.create_task(self.linger()))
            tasks.append(asyncio.create_task(self.touch()))
            await breath()
            raise RuntimeError

        async def fail_inside(self) -> None:
            with pytest.raises(RuntimeError):
                await self.fail()
            slow.set()
            await breath()

    for start in (Failing("k", runtime=runtime).fail, Failing("k", runtime=runtime).fail_inside):
        slow.clear()
        tasks.clear()
        if start.__name__ == "fail":
            with pytest.raises(RuntimeError):
                await start()
            slow.set()
        else:
            await start()
        for found in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(found, UsageError)
            assert "has failed; what it did was taken back" in str(found)
        assert await Failing("k", runtime=runtime).look() == {}


class Friend(Entity):
    """Entities that call each other."""

    async def visit(self, *path: str) -> list[str]:
        self.state["visits"] = self.state.get("visits", 0) + 1
        await breath()
        if path:
            await self._friend(path[0]).visit(*path[1:])
        self.state["left"] = self.state.get("left", 0) + 1
        return list(path)

    async def meet(self, barrier: asyncio.Barrier, *path: str) -> None:
        self.state["met"] = True
        await barrier.wait()
        await self.visit(*path)

    async def look(self) -> dict[str, Any]:
        return dict(self.state)

    def _friend(self, key: str) -> Friend:
        return Friend(key, runtime=self._identity.runtime)


async def test_a_call_by_way_of_another_entity_joins(runtime: Runtime) -> None:
    friend = Friend("a", runtime=runtime)
    await friend.visit("b", "a", "b", "a")
    assert await friend.look() == {"visits": 3, "left": 3}
    assert await Friend("b", runtime=runtime).look() == {"visits": 2, "left": 2}
    assert await version(runtime, "Friend", "a") == 1


async def test_two_calls_that_wait_for_each_other_are_told(runtime: Runtime) -> None:
    barrier = asyncio.Barrier(2)
    found = await asyncio.gather(
        Friend("a", runtime=runtime).meet(barrier, "b"),
        Friend("b", runtime=runtime).meet(barrier, "a"),
        return_exceptions=True,
    )
    [refused] = [error for error in found if error is not None]
    assert isinstance(refused, SessionBusy)
    assert "is held by a call that waits for this one" in str(refused)
    states = [await Friend(key, runtime=runtime).look() for key in "ab"]
    assert {} in states or {"visits": 1, "left": 1} in states


async def test_three_calls_that_wait_in_a_circle_are_told(runtime: Runtime) -> None:
    barrier = asyncio.Barrier(3)
    found = await asyncio.gather(
        *(Friend(key, runtime=runtime).meet(barrier, to) for key, to in ("ab", "bc", "ca")),
        return_exceptions=True,
    )
    assert [isinstance(error, SessionBusy) for error in found].count(True) == 1
    assert found.count(None) == 2


async def test_a_circle_by_way_of_parts_that_were_started_side_by_side_is_told(
    runtime: Runtime,
) -> None:
    barrier = asyncio.Barrier(2)

    class Both(Friend):
        async def part(self) -> None:
            await barrier.wait()
            await breath()
            await Other("b", runtime=runtime).come()

        async def split(self) -> list[Any]:
            parts = self.part(), Other("b", runtime=runtime).back()
            return list(await asyncio.gather(*parts, return_exceptions=True))

    class Other(Entity):
        async def come(self) -> None:
            await breath()

        async def back(self) -> None:
            await barrier.wait()
            await Both("a", runtime=runtime).visit()

    async with asyncio.timeout(10):
        found = await Both("a", runtime=runtime).split()
    assert [isinstance(error, SessionBusy) for error in found].count(True) == 1


async def test_waiting_for_an_entity_that_only_works_is_no_circle(runtime: Runtime) -> None:
    friends = [Friend(key, runtime=runtime) for key in "ab"]
    await asyncio.gather(
        *(friends[0].visit("b") for _ in range(5)), *(friends[1].visit() for _ in range(5))
    )
    assert await friends[1].look() == {"visits": 10, "left": 10}


async def test_a_synchronous_call_that_would_block_its_own_loop_is_refused(
    runtime: Runtime,
) -> None:
    counter = Counter("k", runtime=runtime)
    running = asyncio.create_task(counter.add())
    await asyncio.sleep(0)
    with pytest.raises(SessionBusy, match="a synchronous call here would block"):
        doors.call(counter.look())
    await running


# -- queries


async def test_a_query_may_not_write(runtime: Runtime) -> None:
    class Curious(Counter):
        @query
        async def set_it(self) -> None:
            self.state["x"] = 1

        @query
        async def delete_it(self) -> None:
            self.state.delete("notes")

        @query
        async def change_it_deeply(self) -> None:
            self.state["notes"].append(2)

        @query
        async def call_a_writer(self) -> None:
            await self.add()

        async def all(self) -> None:
            for name in ("set_it", "delete_it", "change_it_deeply", "call_a_writer"):
                with pytest.raises(UsageError, match="@query"):
                    await getattr(self, name)()

    curious = Curious("k", runtime=runtime)
    await curious.noted(1)
    for name in ("set_it", "delete_it", "change_it_deeply", "call_a_writer"):
        with pytest.raises(UsageError, match="@query"):
            await getattr(curious, name)()
    await curious.all()
    assert await curious.look() == {"notes": [1]}
    assert await version(runtime, "Curious") == 1


async def test_a_query_inside_of_a_call_sees_what_the_call_did(runtime: Runtime) -> None:
    class Curious(Counter):
        async def look_inside(self) -> list[int]:
            await self.add(3)
            return [await self.value(), *await asyncio.gather(self.value(), self.value())]

        @query
        async def twice(self) -> int:
            return await self.value() * 2

    curious = Curious("k", runtime=runtime)
    assert await curious.look_inside() == [3, 3, 3]
    assert await curious.twice() == 6


def test_a_query_is_an_async_method() -> None:
    def value() -> None: ...

    with pytest.raises(UsageError, match="write: async def value"):
        query(value)
