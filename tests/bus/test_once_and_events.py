"""Waiting for one event, and reading events as they come."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.bus.listening import numbered, numbers

from tertulia.bus import BusEvent, LocalBus
from tertulia.errors import InvalidInput, UsageError


def is_even(event: BusEvent) -> bool:
    return event.input["number"] % 2 == 0


async def test_once_gives_the_first_event_for_which_the_filter_is_true() -> None:
    bus, seen = LocalBus(), list[BusEvent]()
    once = bus.once("client-1", "session.*", is_even, seen.append)
    for number in (1, 3, 4, 6):
        bus.publish(numbered(number))
    assert numbers([await once]) == [4]
    assert numbers(seen) == [4]
    assert numbers([await once]) == [4]
    assert bus.subscriptions == 0


async def test_once_with_an_async_function_awaits_it_and_then_ends() -> None:
    bus, seen, go = LocalBus(), list[BusEvent](), asyncio.Event()

    async def later(event: BusEvent) -> None:
        await go.wait()
        seen.append(event)

    once = bus.once("client-1", "*", fn=later)
    bus.publish(numbered(1))
    bus.publish(numbered(2))
    assert numbers([await once]) == [1]
    assert bus.subscriptions == 1
    go.set()
    assert await bus.drain()
    assert (numbers(seen), bus.subscriptions) == ([1], 0)


async def test_once_goes_on_when_its_filter_raises(caplog: pytest.LogCaptureFixture) -> None:
    bus = LocalBus()
    once = bus.once("client-1", "*", lambda event: 6 / event.input["number"] == 2)
    for number in (0, 1, 3):
        bus.publish(numbered(number))
    assert numbers([await once]) == [3]
    assert "ZeroDivisionError" in caplog.text


async def test_once_ends_when_its_function_raises(caplog: pytest.LogCaptureFixture) -> None:
    bus = LocalBus()
    once = bus.once("client-1", "*", fn=lambda _: 1 / 0)
    bus.publish(numbered(1))
    assert numbers([await once]) == [1]
    await bus.drain()
    assert bus.subscriptions == 0
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("end", ["cancel", "close"])
async def test_who_awaits_a_once_that_was_cancelled_is_told(end: str) -> None:
    bus = LocalBus()
    once = bus.once("client-1", "*")

    async def wait() -> BusEvent:
        return await once

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0)
    if end == "cancel":
        once.cancel()
    else:
        bus.close()
    with pytest.raises(UsageError, match="cancelled before it came"):
        await waiting
    assert bus.subscriptions == 0


async def test_a_wait_that_times_out_ends_the_once() -> None:
    bus = LocalBus()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(bus.once("client-1", "*"), 0.01)
    assert bus.subscriptions == 0


@pytest.mark.parametrize("wrong", [{"filter": "text"}, {"fn": 5}])
async def test_once_takes_functions(wrong: dict[str, str]) -> None:
    with pytest.raises(InvalidInput):
        LocalBus().once("client-1", "*", **wrong)  # pyright: ignore[reportArgumentType]


async def test_events_are_read_as_they_come_from_when_it_was_called() -> None:
    bus = LocalBus()
    bus.publish(numbered(0))
    async with bus.events("client-1", "session.*") as events:
        for number in (1, 2):
            bus.publish(numbered(number))
        asyncio.get_running_loop().call_soon(bus.publish, numbered(3))
        assert numbers([await anext(events) for _ in range(3)]) == [1, 2, 3]
    assert bus.subscriptions == 0
    with pytest.raises(StopAsyncIteration):
        await anext(events)


async def test_leaving_the_loop_over_events_leaves_nothing() -> None:
    bus = LocalBus()
    asyncio.get_running_loop().call_soon(bus.publish, numbered(1))
    async for event in bus.events():
        assert numbers([event]) == [1]
        break
    assert bus.subscriptions == 0


@pytest.mark.parametrize("end", ["aclose", "close"])
async def test_a_reader_ends_when_the_events_or_the_bus_are_closed(end: str) -> None:
    bus = LocalBus()
    events, seen = bus.events(), list[BusEvent]()

    async def read() -> None:
        seen.extend([event async for event in events])

    reading = asyncio.create_task(read())
    bus.publish(numbered(1))
    await bus.drain()
    if end == "aclose":
        await events.aclose()
    else:
        bus.close()
    await reading
    assert numbers(seen) == [1]


async def test_a_reader_that_is_slow_loses_the_oldest_and_can_tell() -> None:
    bus = LocalBus()
    events = bus.events(size=2)
    for number in range(5):
        bus.publish(numbered(number))
    assert numbers([await anext(events), await anext(events)]) == [3, 4]
    assert events.lost == 3
    await events.aclose()


async def test_a_reader_whose_wait_was_cancelled_can_read_on() -> None:
    bus = LocalBus()
    async with bus.events() as events:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(events), 0.01)
        bus.publish(numbered(1))
        bus.publish(numbered(2))
        assert numbers([await anext(events), await anext(events)]) == [1, 2]


async def test_events_have_one_reader() -> None:
    bus = LocalBus()
    async with bus.events() as events:

        async def read() -> BusEvent:
            return await anext(events)

        first = asyncio.create_task(read())
        await asyncio.sleep(0)
        with pytest.raises(UsageError, match="one task"):
            await read()
        bus.publish(numbered(1))
        assert numbers([await first]) == [1]


async def test_a_reader_that_is_always_busy_lets_others_have_their_turn() -> None:
    bus, turns = LocalBus(), list[int]()
    async with bus.events(size=2000) as events:
        for number in range(2000):
            bus.publish(numbered(number))
        asyncio.get_running_loop().call_soon(turns.append, 1)
        while not turns:
            await anext(events)
        assert bus.publish(numbered(0)) == 1


async def test_events_that_come_from_a_thread_are_read() -> None:
    bus = LocalBus()

    def publish() -> None:
        for number in range(500):
            bus.publish(numbered(number))

    async with bus.events() as events:
        thread = threading.Thread(target=publish)
        thread.start()
        assert numbers([await anext(events) for _ in range(500)]) == list(range(500))
        thread.join()


async def test_once_can_be_awaited_on_another_loop() -> None:
    bus = LocalBus()
    once = bus.once("client-1", "*")

    async def wait() -> BusEvent:
        return await once

    with ThreadPoolExecutor(1) as pool:
        found = asyncio.get_running_loop().run_in_executor(pool, lambda: asyncio.run(wait()))
        bus.publish(numbered(1))
        assert numbers([await found]) == [1]
