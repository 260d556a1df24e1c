"""The bus of one process: who gets what, in which order, and what is left behind."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections import Counter
from typing import Any

import pytest
from tests.bus.listening import SteppedClock, event, numbered, numbers, settle

from tertulia.bus import Bus, BusEvent, LocalBus
from tertulia.bus import registry as remembered
from tertulia.errors import InvalidInput, UsageError

HUNDRED = list(range(100))


async def test_a_sync_listener_has_seen_an_event_after_one_turn_of_the_loop() -> None:
    bus, seen = LocalBus(), list[BusEvent]()
    bus.listen("client-1", "session.*", seen.append)
    assert bus.publish(event()) == 1
    assert seen == []
    await asyncio.sleep(0)
    assert seen == [event()]


@pytest.mark.parametrize("is_async", [False, True])
async def test_every_listener_gets_the_events_in_their_order(is_async: bool) -> None:
    bus, seen = LocalBus(), list[list[BusEvent]]()
    for _ in range(3):
        mine: list[BusEvent] = []
        seen.append(mine)

        async def add(each: BusEvent, mine: list[BusEvent] = mine) -> None:
            await asyncio.sleep(0)
            mine.append(each)

        bus.listen("client-1", "*", add if is_async else mine.append)
    for number in HUNDRED:
        bus.publish(numbered(number))
    assert await bus.drain()
    assert [numbers(each) for each in seen] == [HUNDRED] * 3


async def test_listeners_are_called_in_the_order_in_which_they_were_registered() -> None:
    bus, called = LocalBus(), list[str]()
    bus.listen("*", "*", lambda _: called.append("everyone"))
    bus.listen("client-1", "*", lambda _: called.append("client"))
    bus.listen("*", "session.*", lambda _: called.append("session"))
    bus.publish(event())
    await settle()
    assert called == ["everyone", "client", "session"]


async def test_a_listener_gets_only_its_client_and_its_topics() -> None:
    bus, seen = LocalBus(), dict[str, list[str]]()
    for client, pattern in (("a", "*"), ("*", "session.emit"), ("b", "*.emit"), ("*", "tool.*")):
        mine = seen.setdefault(f"{client} {pattern}", [])
        bus.listen(client, pattern, lambda e, mine=mine: mine.append(f"{e.client_id} {e.type}"))
    counts = [bus.publish(event(kind, who)) for who in "ab" for kind in ("emit", "execute")]
    await settle()
    assert counts == [2, 1, 2, 0]
    assert seen == {
        "a *": ["a emit", "a execute"],
        "* session.emit": ["a emit", "b emit"],
        "b *.emit": ["b emit"],
        "* tool.*": [],
    }


async def test_an_event_as_the_page_writes_it_reaches_its_listeners_with_the_time() -> None:
    clock = SteppedClock()
    clock.seconds = 2.0
    bus, seen = LocalBus(clock), list[BusEvent]()
    bus.listen("client-1", "session.emit", seen.append)
    page: dict[str, Any] = {
        "type": "emit",
        "source": "session-bus",
        "input": {"message": "hello"},
        "output": {},
        "context": {"swarm_name": "shop"},
        "client_id": "client-1",
    }
    assert await bus.emit("client-1", page) == 1
    assert await bus.emit("client-1", {"type": "placed", "source": "order"}) == 0
    await bus.drain()
    assert [each.to_dict() for each in seen] == [page | {"seq": None, "time": 2_000_000}]


async def test_events_of_a_source_of_ones_own_are_heard_under_its_name() -> None:
    bus, seen = LocalBus(), list[BusEvent]()
    bus.listen("*", "order.*", seen.append)
    await bus.emit("c", {"type": "placed", "source": "order-bus", "input": {"id": 7}, "time": 5})
    await bus.drain()
    assert [(each.topic, each.time, each.input) for each in seen] == [
        ("order.placed", 5, {"id": 7})
    ]


async def test_whether_anybody_listens_is_known_before_an_event_is_made() -> None:
    bus = LocalBus()
    assert not bus.wants("client-1", "session.execute")
    subscription = bus.listen("client-1", "session.*", print)
    assert bus.wants("client-1", "session.execute")
    assert not bus.wants("client-1", "tool.call")
    assert not bus.wants("client-2", "session.execute")
    everyone = bus.listen("*", "tool.*", print)
    assert bus.wants("client-2", "tool.call")
    subscription.cancel()
    everyone.cancel()
    assert not bus.wants("client-1", "session.execute")
    assert not bus.wants("client-2", "tool.call")


async def test_what_is_remembered_of_who_listens_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(remembered, "MAX_CLIENTS", 3)
    monkeypatch.setattr(remembered, "MAX_TOPICS", 2)
    bus, seen = LocalBus(), list[str]()
    bus.listen("*", "*.a1", lambda e: seen.append(f"{e.client_id} {e.type}"))
    for _ in range(2):
        for client in "pqrstu":
            for kind in ("a1", "a2", "a3"):
                bus.publish(event(kind, client))
    await bus.drain()
    assert seen == [f"{client} a1" for client in "pqrstu"] * 2


async def test_nothing_comes_after_a_subscription_was_cancelled() -> None:
    bus, seen = LocalBus(), list[BusEvent]()
    subscription = bus.listen("client-1", "*", seen.append)
    bus.publish(event())
    subscription.cancel()
    subscription.cancel()
    assert bus.publish(event()) == 0
    await settle()
    assert (seen, subscription.cancelled, bus.subscriptions) == ([], True, 0)


async def test_a_subscription_is_a_context_manager() -> None:
    bus = LocalBus()
    with bus.listen("client-1", "session.*", print) as subscription:
        assert (subscription.client_id, subscription.pattern) == ("client-1", "session.*")
        assert bus.subscriptions == 1
    assert bus.subscriptions == 0


async def test_a_listener_may_cancel_itself_and_others_and_listen_again() -> None:
    bus, seen = LocalBus(), list[str]()

    def first(_: BusEvent) -> None:
        seen.append("first")
        for each in subscriptions:
            each.cancel()
        bus.listen("client-1", "*", lambda _: seen.append("third"))

    subscriptions = [
        bus.listen("client-1", "*", first),
        bus.listen("client-1", "*", lambda _: seen.append("second")),
    ]
    bus.publish(event())
    bus.publish(event())
    await settle()
    bus.publish(event())
    await settle()
    assert seen == ["first", "third"]


async def test_an_async_listener_that_cancels_itself_runs_to_its_end() -> None:
    bus, seen = LocalBus(), list[str]()

    async def listener(_: BusEvent) -> None:
        subscription.cancel()
        await asyncio.sleep(0)
        seen.append("ended")

    subscription = bus.listen("client-1", "*", listener)
    bus.publish(event())
    bus.publish(event())
    for _ in range(5):
        await asyncio.sleep(0)
    assert seen == ["ended"]


async def test_what_waits_is_bounded_and_the_oldest_is_dropped_and_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bus, seen = LocalBus(), list[BusEvent]()
    subscription = bus.listen("client-1", "*", seen.append, size=10)
    for number in HUNDRED:
        bus.publish(numbered(number))
    await settle()
    assert numbers(seen) == HUNDRED[-10:]
    assert subscription.lost == 90
    assert caplog.text.count("list.append of * is too slow: more than 10 events wait") == 1


async def test_a_drain_waits_until_the_calls_have_returned() -> None:
    bus, seen, go = LocalBus(), list[BusEvent](), asyncio.Event()

    async def listener(each: BusEvent) -> None:
        await go.wait()
        seen.append(each)

    bus.listen("client-1", "*", listener)
    assert await bus.drain()
    bus.publish(event())
    drained = asyncio.create_task(bus.drain(60))
    await settle()
    assert not drained.done()
    go.set()
    assert await drained
    assert seen == [event()]


async def test_a_drain_is_bounded_and_waits_for_a_stuck_listener_only_once() -> None:
    bus, never = LocalBus(), asyncio.Event()

    async def stuck(_: BusEvent) -> None:
        await never.wait()

    bus.listen("client-1", "*", stuck)
    bus.publish(event())
    assert not await bus.drain(0.01)
    bus.publish(event())
    assert await bus.drain(3600)
    never.set()
    assert await bus.drain(3600)
    await bus.aclose()


async def test_a_drain_of_one_client_does_not_wait_for_those_of_another() -> None:
    bus, seen, never = LocalBus(), list[BusEvent](), asyncio.Event()

    async def stuck(_: BusEvent) -> None:
        await never.wait()

    bus.listen("other", "*", stuck)
    bus.listen("*", "session.*", seen.append)
    bus.publish(event(client="other"))
    bus.publish(event())
    assert await bus.drain(3600, client_id="client-1")
    assert len(seen) == 2
    await bus.aclose()


async def test_a_listener_that_drains_the_bus_does_not_wait_for_itself() -> None:
    bus, drained = LocalBus(), list[bool]()

    async def listener(_: BusEvent) -> None:
        drained.append(await asyncio.create_task(bus.drain(3600)))

    bus.listen("client-1", "*", listener)
    bus.publish(event())
    assert await bus.drain(3600)
    assert drained == [True]


async def test_a_closed_bus_ends_its_tasks_and_takes_nothing_more() -> None:
    bus, ended, never = LocalBus(), list[str](), asyncio.Event()

    async def stuck(_: BusEvent) -> None:
        try:
            await never.wait()
        finally:
            ended.append("stuck")

    subscription = bus.listen("client-1", "*", stuck)
    bus.publish(event())
    await settle()
    before = asyncio.all_tasks()
    await bus.aclose()
    bus.close()
    assert (ended, subscription.cancelled, bus.subscriptions) == (["stuck"], True, 0)
    assert asyncio.all_tasks() < before
    assert bus.publish(event()) == 0
    assert not bus.wants("client-1", "session.execute")
    for use in (
        lambda: bus.listen("c", "*", print),
        lambda: bus.once("c", "*"),
        bus.events,
    ):
        with pytest.raises(UsageError, match="closed"):
            use()
    with pytest.raises(UsageError, match="closed"):
        await bus.emit("c", {"type": "a", "source": "b"})


async def test_a_listener_may_close_the_bus_and_wait_for_it() -> None:
    bus, seen = LocalBus(), list[str]()

    async def listener(_: BusEvent) -> None:
        await bus.aclose()
        seen.append("closed")

    bus.listen("client-1", "*", listener)
    bus.publish(event())
    for _ in range(5):
        await asyncio.sleep(0)
    assert seen == ["closed"]


@pytest.mark.parametrize(
    ("client", "pattern", "fn", "size"),
    [
        ("", "*", print, 10),
        (None, "*", print, 10),
        ("c", "", print, 10),
        ("c", "session", print, 10),
        ("c", "*", None, 10),
        ("c", "*", "print", 10),
        ("c", "*", print, 0),
        ("c", "*", print, True),
        ("c", "*", print, 10**9),
    ],
)
async def test_a_listener_that_could_never_work_is_refused(
    client: Any, pattern: Any, fn: Any, size: Any
) -> None:
    bus = LocalBus()
    with pytest.raises(InvalidInput):
        bus.listen(client, pattern, fn, size=size)
    assert bus.subscriptions == 0


def kept() -> Counter[str]:
    """How many objects of the bus there are, by kind."""
    gc.collect()
    kinds = {"Mailbox", "OnLoop", "InTask", "Subscription", "Once", "BusEvents", "BusEvent"}
    return Counter(name for each in gc.get_objects() if (name := type(each).__name__) in kinds)


async def come_and_go(bus: LocalBus, number: int) -> None:
    """One of every kind of subscription, with an event, and the end of them."""
    client, seen = f"client-{number}", list[BusEvent]()

    async def later(each: BusEvent) -> None:
        seen.append(each)

    subscriptions = [bus.listen(client, "*", seen.append), bus.listen(client, "*", later)]
    once, events = bus.once(client, "*.never"), bus.events(client, "session.*")
    bus.publish(event(client=client))
    if number % 100 == 0:
        await asyncio.sleep(0)
    for each in (*subscriptions, once):
        each.cancel()
    await events.aclose()


async def test_ten_thousand_subscriptions_leave_nothing() -> None:
    bus, before = LocalBus(), kept()
    tasks, threads = len(asyncio.all_tasks()), threading.active_count()
    for number in range(2_500):
        await come_and_go(bus, number)
    await settle()
    assert (bus.subscriptions, len(asyncio.all_tasks())) == (0, tasks)
    assert threading.active_count() == threads
    assert kept() - before == Counter()


async def test_the_local_bus_is_a_bus() -> None:
    bus: Bus = LocalBus()
    assert bus.subscriptions == 0
