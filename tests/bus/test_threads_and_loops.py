"""The bus between threads and loops, and listeners that block."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator
from contextlib import contextmanager

import pytest
from tests.bus.listening import SteppedClock, event, numbered, numbers

from tertulia.bus import BusEvent, LocalBus

LONG = 30.0
"""Seconds after which a test that waits has failed."""


@contextmanager
def another_loop() -> Generator[asyncio.AbstractEventLoop]:
    """A loop that runs in a thread, until the block ends; then it is closed."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def test_events_from_threads_come_in_the_order_of_each_thread() -> None:
    bus, seen = LocalBus(), list[BusEvent]()
    bus.listen("*", "*", seen.append, size=10_000)

    def publish(client: str) -> None:
        for number in range(1000):
            bus.publish(numbered(number, client))

    threads = [threading.Thread(target=publish, args=(client,)) for client in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert await bus.drain(LONG)
    for client in "abcd":
        mine = [each for each in seen if each.client_id == client]
        assert numbers(mine) == list(range(1000))


async def test_a_listener_is_called_on_the_loop_where_it_was_registered() -> None:
    bus, where = LocalBus(), set[tuple[str, asyncio.AbstractEventLoop]]()

    async def listen(name: str) -> None:
        async def later(_: BusEvent) -> None:
            where.add((f"{name} async", asyncio.get_running_loop()))

        bus.listen("c", "*", lambda _: where.add((f"{name} sync", asyncio.get_running_loop())))
        bus.listen("c", "*", later)

    here = asyncio.get_running_loop()
    with another_loop() as there:
        await listen("here")
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(listen("there"), there))
        await bus.emit("c", {"type": "a", "source": "b"})
        assert await bus.drain(LONG)
    expected = {("here sync", here), ("here async", here)}
    assert where == expected | {("there sync", there), ("there async", there)}
    bus.close()


@pytest.mark.parametrize("is_async", [False, True])
async def test_the_listener_of_a_loop_that_is_closed_is_dropped(
    is_async: bool, caplog: pytest.LogCaptureFixture
) -> None:
    bus, seen = LocalBus(), list[BusEvent]()

    async def later(each: BusEvent) -> None:
        seen.append(each)

    async def listen() -> None:
        bus.listen("client-1", "*", later if is_async else seen.append)

    await asyncio.to_thread(asyncio.run, listen())
    assert bus.subscriptions == 1
    bus.publish(event())
    assert (seen, bus.subscriptions) == ([], 0)
    assert "event loop is closed" in caplog.text


async def test_a_loop_that_closed_in_the_middle_is_noticed_when_the_mailbox_is_full() -> None:
    bus = LocalBus()

    async def listen() -> None:
        bus.listen("client-1", "*", print, size=5)
        bus.publish(event())
        asyncio.get_running_loop().stop()

    loop = asyncio.new_event_loop()

    def stop_in_the_middle() -> None:
        task = loop.create_task(listen())
        loop.call_soon(loop.stop)
        loop.run_forever()
        assert task.done()
        loop.close()

    await asyncio.to_thread(stop_in_the_middle)
    for _ in range(6):
        bus.publish(event())
    assert bus.subscriptions == 0


async def test_a_sync_listener_that_blocks_its_loop_gets_a_thread_of_its_own(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock, release = SteppedClock(), threading.Event()
    bus, seen, fast = LocalBus(clock), list[tuple[int, bool]](), list[BusEvent]()
    main = threading.current_thread()

    def blocking(each: BusEvent) -> None:
        if threading.current_thread() is not main:
            release.wait(LONG)
        clock.seconds += 0.06
        seen.append((each.input["number"], threading.current_thread() is main))

    slow = bus.listen("client-1", "*", blocking, size=10)
    bus.listen("client-1", "*", fast.append)
    for number in range(5):
        bus.publish(numbered(number))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert seen == [(0, True)]
    assert numbers(fast) == [0, 1, 2, 3, 4]
    assert "thread of its own" in caplog.text
    release.set()
    assert await bus.drain(LONG)
    assert seen == [(0, True)] + [(number, False) for number in range(1, 5)]
    assert slow.lost == 0
    bus.close()


async def test_a_sync_listener_that_never_returns_in_its_thread_disturbs_nobody() -> None:
    bus, seen = LocalBus(), list[BusEvent]()
    release, called = threading.Event(), threading.Event()

    def stuck(_: BusEvent) -> None:
        called.set()
        release.wait(LONG)

    slow = await asyncio.to_thread(bus.listen, "c", "*", stuck, size=10)
    bus.listen("c", "*", seen.append, size=10)
    bus.publish(numbered(0, "c"))
    await asyncio.to_thread(called.wait, LONG)
    for number in range(1, 100):
        await bus.emit("c", {"type": "count", "source": "app", "input": {"number": number}})
    await asyncio.sleep(0)
    assert numbers(seen) == list(range(100))
    assert slow.lost == 100 - 1 - 10
    slow.cancel()
    release.set()


def test_a_listener_that_was_registered_without_a_loop_is_called_in_a_thread() -> None:
    bus, seen, names = LocalBus(), list[int](), set[str]()
    enough = threading.Event()

    def add(each: BusEvent) -> None:
        seen.append(each.input["number"])
        names.add(threading.current_thread().name)
        if len(seen) == 100:
            enough.set()

    with bus.listen("client-1", "*", add):
        for number in range(100):
            bus.publish(numbered(number))
        assert enough.wait(LONG)
    assert (seen, names) == (list(range(100)), {"tertulia-bus"})


def test_an_async_listener_without_a_loop_waits_for_the_first_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bus, seen = LocalBus(), list[BusEvent]()

    async def add(each: BusEvent) -> None:
        seen.append(each)

    async def emit() -> None:
        bus.publish(numbered(3))
        assert await bus.drain(LONG)

    bus.listen("client-1", "*", add)
    bus.publish(numbered(1))
    bus.publish(numbered(2))
    assert caplog.text.count("has no event loop yet") == 1
    asyncio.run(emit())
    assert numbers(seen) == [1, 2, 3]


async def test_an_awaitable_in_a_thread_is_told_and_the_listener_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bus = LocalBus()

    async def never() -> None:
        return

    await asyncio.to_thread(bus.listen, "client-1", "*", lambda _: never())
    bus.publish(event())
    bus.publish(event())
    assert await bus.drain(LONG)
    assert caplog.text.count("raised UsageError") == 2
    bus.close()


async def test_an_idle_thread_ends_when_its_subscription_does() -> None:
    bus, seen = LocalBus(), list[threading.Thread]()
    subscription = await asyncio.to_thread(
        bus.listen, "client-1", "*", lambda _: seen.append(threading.current_thread())
    )
    bus.publish(event())
    assert await bus.drain(LONG)
    subscription.cancel()
    await asyncio.to_thread(seen[0].join, LONG)
    assert not seen[0].is_alive()


async def test_a_subscription_may_be_cancelled_from_another_thread() -> None:
    bus, started, ended = LocalBus(), asyncio.Event(), asyncio.Event()

    async def stuck(_: BusEvent) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    subscription = bus.listen("client-1", "*", stuck)
    bus.publish(event())
    await started.wait()
    await asyncio.to_thread(subscription.cancel)
    await asyncio.wait_for(ended.wait(), LONG)
    assert bus.subscriptions == 0
