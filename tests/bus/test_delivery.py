"""How listeners are called: none loses what it can keep up with, none disturbs another."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar

import pytest
from tests.bus.listening import event, numbered, numbers, settle

from tertulia.bus import BusEvent, LocalBus

HUNDRED = list(range(100))


@pytest.mark.parametrize("size", [1, 2, 16, 1000])
@pytest.mark.parametrize("is_async", [False, True])
async def test_an_emitter_lets_listeners_that_keep_up_lose_nothing(
    size: int, is_async: bool
) -> None:
    bus, seen = LocalBus(), list[BusEvent]()

    async def add(each: BusEvent) -> None:
        seen.append(each)

    subscription = bus.listen("c", "*", add if is_async else seen.append, size=size)
    for number in range(3000):
        await bus.emit("c", {"type": "count", "source": "app", "input": {"number": number}})
    await bus.drain()
    assert subscription.lost == 0
    assert numbers(seen) == list(range(3000))


async def test_a_listener_that_never_returns_disturbs_nobody() -> None:
    bus, seen, never = LocalBus(), list[BusEvent](), asyncio.Event()

    async def stuck(_: BusEvent) -> None:
        await never.wait()

    slow = bus.listen("c", "*", stuck, size=10)
    bus.listen("c", "*", seen.append, size=10)
    for number in HUNDRED:
        await bus.emit("c", {"type": "count", "source": "app", "input": {"number": number}})
    await settle()
    assert numbers(seen) == HUNDRED
    assert slow.lost == 100 - 1 - 10
    await bus.aclose()


async def test_a_listener_that_raises_goes_on_with_the_next_event_and_says_no_words_of_a_user(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bus, seen = LocalBus(), list[BusEvent]()

    def failing(each: BusEvent) -> None:
        seen.append(each)
        raise ValueError(each.input["words"])

    async def failing_later(each: BusEvent) -> None:
        failing(each)

    async def cancelled(each: BusEvent) -> None:
        seen.append(each)
        raise asyncio.CancelledError

    for fn in (failing, failing_later, cancelled):
        bus.listen("c", "*", fn)
    bus.publish(event(client="c", input={"words": "private"}))
    bus.publish(event(client="c", input={"words": "private"}))
    assert await bus.drain()
    assert len(seen) == 6
    assert caplog.text.count("raised ValueError") == 4
    assert caplog.text.count("raised CancelledError") == 2
    assert "in failing" in caplog.text
    assert "private" not in caplog.text


async def test_a_listener_that_always_raises_does_not_fill_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bus = LocalBus()
    bus.listen("c", "*", lambda _: 1 / 0)
    for number in range(1000):
        bus.publish(numbered(number, "c"))
    await bus.drain()
    assert len(caplog.records) == 10


async def test_a_sync_function_that_gives_an_awaitable_is_awaited_in_order() -> None:
    bus, seen = LocalBus(), list[int]()

    async def add(number: int) -> None:
        await asyncio.sleep(0)
        seen.append(number)

    bus.listen("c", "*", lambda each: add(each.input["number"]))
    for number in HUNDRED:
        bus.publish(numbered(number, "c"))
    assert await bus.drain()
    assert seen == HUNDRED


async def test_an_object_whose_call_is_async_is_an_async_listener() -> None:
    seen: list[BusEvent] = []

    class Listener:
        async def __call__(self, each: BusEvent) -> None:
            seen.append(each)

    bus = LocalBus()
    bus.listen("client-1", "*", Listener())
    bus.publish(event())
    await bus.drain()
    assert seen == [event()]


async def test_the_task_of_an_async_listener_ends_when_nothing_is_left() -> None:
    bus = LocalBus()

    async def listener(_: BusEvent) -> None:
        await asyncio.sleep(0)

    before = asyncio.all_tasks()
    bus.listen("client-1", "*", listener)
    assert asyncio.all_tasks() == before
    bus.publish(event())
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks() - before) == 1
    await bus.drain()
    await settle()
    assert asyncio.all_tasks() == before


async def test_a_listener_does_not_run_in_the_context_of_the_publisher() -> None:
    turn: ContextVar[str] = ContextVar("turn", default="none")
    bus, seen = LocalBus(), list[str]()

    async def later(_: BusEvent) -> None:
        seen.append(turn.get())

    turn.set("of the listener")
    bus.listen("client-1", "*", lambda _: seen.append(turn.get()))
    bus.listen("client-1", "*", later)
    turn.set("of the publisher")
    bus.publish(event())
    await bus.drain()
    assert seen == ["of the listener"] * 2
