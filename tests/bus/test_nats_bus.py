"""A bus of many processes: who gets which event, in which order, and what happens without NATS."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
from typing import Any

import msgspec
import pytest
from tests.bus.listening import event, numbered, numbers
from tests.bus.nats_helpers import buses, connection, eventually, named

from tertulia import settings
from tertulia.bus import BusEvent, LocalBus, open_bus
from tertulia.bus.nats import NatsBus
from tertulia.bus.nats_carrying import MAX_EVENT
from tertulia.bus.nats_connection import NatsConnection
from tertulia.bus.nats_interest import Announcement
from tertulia.errors import ConfigurationError, InvalidInput, UsageError
from tertulia.testing.servers import NatsServer

CHILD = """
import asyncio, sys
from tertulia.bus import BusEvent, open_bus

async def main():
    bus = open_bus(sys.argv[1])
    gone = asyncio.Event()
    seen = []

    async def hear(event):
        seen.append(event.input["number"])
        await bus.emit("back", {"type": "seen", "source": "child", "input": {"seen": seen[-1]}})
        if len(seen) == 100:
            gone.set()

    bus.listen("client-1", "session.*", hear)
    await bus.connection.ready(10)
    print("ready", flush=True)
    await gone.wait()
    print(seen == list(range(100)), flush=True)
    await bus.aclose()

asyncio.run(main())
"""


def tap_events(tap: NatsConnection, carried: list[bytes]) -> None:
    """Hear all messages with events."""

    def hear(subject: str, data: bytes, reply: str) -> None:
        if subject.endswith(".event"):
            carried.append(data)

    tap.subscribe(f"tertulia.{tap.name}.bus.>", hear)


async def ids_of(foreign: NatsConnection, count: int) -> set[bytes]:
    """The ids of some buses, as they say them when they are asked."""
    ids: set[bytes] = set()
    me = b"a-tester"
    root = f"tertulia.{foreign.name}.bus"

    def hear(subject: str, data: bytes, reply: str) -> None:
        ids.add(msgspec.msgpack.decode(data, type=Announcement).bus)

    foreign.subscribe(f"{root}.to.{me.hex()}.listen", hear)
    foreign.publish(f"{root}.all.ask", me)
    await eventually(lambda: len(ids) == count)
    return ids


async def test_what_is_emitted_reaches_another_process_and_its_answer_comes_back(nats: str) -> None:
    url = named(nats)
    command = [sys.executable, "-W", "error", "-c", CHILD, url]
    child = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    assert child.stdout is not None
    back: list[Any] = []
    bus = open_bus(url)
    try:
        bus.listen("back", "child.seen", lambda event: back.append(event.input["seen"]))
        assert await child.stdout.readline() == b"ready\n"
        await eventually(lambda: bus.wants("client-1", "session.execute"))
        for number in range(0, 100, 2):
            await bus.emit("client-1", numbered(number))
            bus.publish(numbered(number + 1))
        assert await child.stdout.readline() == b"True\n"
        await eventually(lambda: len(back) == 100)
        assert back == list(range(100))
        assert await child.wait() == 0
    finally:
        await bus.aclose()


async def test_an_event_arrives_as_it_was_sent(nats: str) -> None:
    heard: list[BusEvent] = []
    sent = BusEvent(
        type="placed",
        source="order-bus",
        input={"text": "ünï \x00 \U0001f600", "big": 2**80, "deep": [[{"a": None}]]},
        output={"float": 0.1, "yes": True},
        context={"agent_name": "a"},
        client_id="café *.> \N{BALLOON}",
        seq=7,
        time=1_700_000_000_000_000,
    )
    async with buses(named(nats)) as (one, other):
        other.listen(sent.client_id, "order.placed", heard.append)
        await one.emit(sent.client_id, sent)
        await eventually(lambda: heard)
        assert heard == [sent]
        await eventually(lambda: one.wants(sent.client_id, "order.placed"))
        one.publish(sent)
        await eventually(lambda: heard == [sent, sent])


async def test_listeners_here_get_an_event_once_and_as_without_nats(nats: str) -> None:
    here: list[BusEvent] = []
    there: list[BusEvent] = []
    async with buses(named(nats)) as (one, other):
        one.listen("client-1", "*", here.append)
        other.listen("*", "*", there.append)
        await eventually(lambda: one.wants("elsewhere", "session.execute"))
        assert await one.emit("client-1", event()) == 1
        assert one.publish(event("commit")) == 1
        await eventually(lambda: len(there) == 2)
        await one.emit("other", event(client="other"))
        await eventually(lambda: len(there) == 3)
        assert [each.type for each in here] == ["execute", "commit"]


async def test_what_is_published_goes_only_where_somebody_listens(nats: str) -> None:
    heard: list[BusEvent] = []
    carried: list[bytes] = []
    url = named(nats)
    async with connection(url) as tap, buses(url, 3) as (one, other, third):
        tap_events(tap, carried)
        other.listen("client-1", "session.*", heard.append)
        await eventually(lambda: one.wants("client-1", "session.execute"))
        assert not one.wants("client-2", "session.execute")
        await eventually(lambda: third.wants("client-1", "session.execute"))
        one.publish(event(client="client-2"))
        one.publish(numbered(1), numbered(2))
        await eventually(lambda: len(heard) == 2)
        await eventually(lambda: carried)
        await one.emit("client-2", event(client="client-2", context={"last": True}))
        await eventually(lambda: b"last" in carried[-1])
    assert [msgspec.json.decode(each)[2][0]["client_id"] for each in carried] == [
        "client-1",
        "client-2",
    ]


async def test_all_that_one_bus_sends_keeps_its_order(nats: str) -> None:
    everything: list[BusEvent] = []
    async with buses(named(nats), 3) as (one, other, third):
        third.listen("client-3", "*", lambda event: None)
        await eventually(lambda: one.wants("client-3", "a.b"))
        other.listen("*", "*", everything.append, size=10_000)
        await eventually(lambda: one.wants("client-1", "a.b"))
        for number in range(0, 3_000, 3):
            await one.emit(f"client-{number % 7}", numbered(number, f"client-{number % 7}"))
            one.publish(numbered(number + 1, "client-3"), numbered(number + 2, "client-4"))
        await eventually(lambda: len(everything) == 3_000)
    assert numbers(everything) == list(range(3_000))


async def test_where_many_listen_to_all_clients_one_message_serves_them(nats: str) -> None:
    heard: list[list[BusEvent]] = [[] for _ in range(6)]
    carried: list[bytes] = []
    url = named(nats)
    async with connection(url) as tap, buses(url, 7) as (one, *others):
        tap_events(tap, carried)
        for bus, each in zip(others, heard, strict=True):
            bus.listen("*", "*", each.append)
        while not all(heard):
            one.publish(numbered(0))
            await asyncio.sleep(0.01)
        one.publish(numbered(1))
        await one.emit("client-1", numbered(2))
        await eventually(lambda: all(numbers(each)[-1] == 2 for each in heard))
        await eventually(lambda: b'"number":2' in carried[-1])
    assert [numbers(each)[-2:] for each in heard] == [[1, 2]] * 6
    assert [b'"number":1' in each for each in carried[-3:]] == [False, True, False]


async def test_who_listens_no_more_is_not_sent_anything(nats: str) -> None:
    async with buses(named(nats)) as (one, other):
        subscription = other.listen("client-1", "*", lambda event: None)
        await eventually(lambda: one.wants("client-1", "a.b"))
        subscription.cancel()
        await eventually(lambda: not one.wants("client-1", "a.b"))
        once = other.once("client-2", "*")
        await eventually(lambda: one.wants("client-2", "a.b"))
        await one.emit("client-2", event(client="client-2"))
        assert (await once).type == "execute"
        other.close()
        await eventually(lambda: one.peers == 0)


async def test_an_async_iterator_gets_events_of_other_processes(nats: str) -> None:
    async with buses(named(nats)) as (one, other), other.events("client-1", "*") as events:
        await one.emit("client-1", numbered(1))
        assert (await anext(aiter(events))).input == {"number": 1}


async def test_a_listener_is_never_called_on_the_thread_of_the_connection(nats: str) -> None:
    loops: list[object] = []

    async def hear(event: BusEvent) -> None:
        loops.append(asyncio.get_running_loop())

    async with buses(named(nats)) as (one, other):
        await asyncio.to_thread(other.listen, "client-1", "*", hear)
        other.listen("client-1", "*", lambda event: loops.append(asyncio.get_running_loop()))
        await one.emit("client-1", event())
        await eventually(lambda: loops)
        await other.emit("client-1", event())
        await eventually(lambda: len(loops) == 4)
    assert set(loops) == {asyncio.get_running_loop()}


async def test_what_is_too_large_stays_here_and_is_counted(
    nats: str, caplog: pytest.LogCaptureFixture
) -> None:
    here: list[BusEvent] = []
    there: list[BusEvent] = []
    large = event(input={"text": "x" * MAX_EVENT})
    broken = event(input={"text": "\ud800"})
    almost = event(input={"text": "y" * (MAX_EVENT - 1_000)})
    async with buses(named(nats)) as (one, other):
        one.listen("client-1", "*", here.append)
        other.listen("*", "*", there.append)
        await eventually(lambda: one.wants("elsewhere", "a.b"))
        with caplog.at_level(logging.WARNING, "tertulia.bus"):
            assert one.publish(large, broken, almost, almost, almost) == 5
            assert one.publish(large) == 1
        for each in (large, broken):
            with pytest.raises(InvalidInput, match="larger than 512 KB"):
                await one.emit("client-1", each)
        await eventually(lambda: len(there) == 3)
        assert one.lost == 3
    assert len(here) == 6
    assert caplog.text.count("was not carried") == 1


async def test_what_is_no_message_of_a_bus_is_ignored(nats: str) -> None:
    heard: list[BusEvent] = []
    url = named(nats)
    async with connection(url) as foreign, buses(url, 2) as (one, other):
        ids = await ids_of(foreign, 2)
        other.listen("client-1", "*", heard.append)
        root = f"tertulia.{foreign.name}.bus"
        kinds = ("all.event", "all.listen", "all.ask", "all.else")
        rubbish = (
            *(b"", b"\xff", b"[]", b"{}", b"null", b'["a",[],[{"type":1}]]'),
            *(b'["a",[],[{"type":"t","source":"s","client_id":5}]]', b"[" * 10_000, b"\x93\x01"),
            msgspec.msgpack.encode([b"short", 1, 0, True, b"", b""]),
            msgspec.msgpack.encode([b"12345678", 1, 0, True, b"odd", b""]),
            msgspec.msgpack.encode([b"12345678", -1, 0, "yes", b"", b""]),
        )
        for kind in kinds:
            for data in rubbish:
                assert foreign.publish(f"{root}.{kind}", data)
        for each in ids:
            assert foreign.publish(f"{root}.to.{each.hex()}.event", b"")
        await eventually(lambda: other.ignored == one.ignored == len(kinds) * len(rubbish) + 1)
        await one.emit("client-1", event())
        await eventually(lambda: heard)
        assert one.peers == 1


async def test_a_bus_that_missed_something_asks_for_all_of_it(nats: str) -> None:
    url = named(nats)
    async with connection(url) as foreign, buses(url) as (one, other):
        ids = await ids_of(foreign, 2)
        other.listen("client-1", "*", lambda event: None)
        await eventually(lambda: one.wants("client-1", "a.b"))
        for each in ids:
            forged = msgspec.msgpack.encode(Announcement(each, 0, 0, everyone=False))
            foreign.publish(f"tertulia.{foreign.name}.bus.all.listen", forged)
        await eventually(lambda: not one.wants("client-1", "a.b"))
        other.listen("client-2", "*", lambda event: None)
        await eventually(lambda: one.wants("client-2", "a.b") and one.wants("client-1", "a.b"))


async def test_without_nats_listeners_here_get_their_events() -> None:
    heard: list[BusEvent] = []
    server = NatsServer()
    try:
        async with buses(server.url) as (one, other):
            other.listen("*", "*", heard.append)
            one.listen("client-1", "*", heard.append)
            await eventually(lambda: one.wants("elsewhere", "a.b"))
            os.kill(server.pid, signal.SIGKILL)
            await eventually(lambda: not one.connection.connected)
            assert await one.emit("client-1", numbered(1)) == 1
            assert one.publish(numbered(2)) == 1
            assert not one.wants("elsewhere", "a.b")
            await eventually(lambda: numbers(heard) == [1, 2])
            assert one.lost == 2
            server.stop()
            server.start()
            assert await other.connection.ready(10)
            await eventually(lambda: one.wants("elsewhere", "a.b"))
            one.publish(numbered(3, "elsewhere"))
            await eventually(lambda: numbers(heard) == [1, 2, 3])
    finally:
        server.close()


async def test_a_bus_of_another_name_hears_nothing(nats: str) -> None:
    heard: list[BusEvent] = []
    mine = named(nats)
    async with buses(mine) as (one, other), buses(named(nats), 1) as (stranger,):
        stranger.listen("*", "*", heard.append)
        other.listen("*", "*", heard.append)
        await one.emit("client-1", event())
        await eventually(lambda: heard)
        await stranger.emit("client-1", event("last"))
        await eventually(lambda: len(heard) == 2)
    assert [each.type for each in heard] == ["execute", "last"]


async def test_a_bus_that_is_closed_takes_nothing(nats: str) -> None:
    bus = NatsBus(NatsConnection(named(nats)))
    bus.listen("client-1", "*", lambda event: None)
    bus.close()
    await bus.aclose()
    assert bus.publish(event()) == 0
    assert not bus.wants("client-1", "a.b")
    assert bus.subscriptions == 0
    for refused in (bus.once, bus.events):
        with pytest.raises(UsageError, match="the bus is closed"):
            refused("client-1", "*")
    with pytest.raises(UsageError, match="the bus is closed"):
        await bus.emit("client-1", event())


async def test_a_bus_that_nobody_used_has_no_connection(nats: str) -> None:
    bus = open_bus(named(nats))
    assert isinstance(bus, NatsBus)
    assert bus.subscriptions == 0
    bus.close()
    assert not bus.connection.connected


def test_an_address_names_a_bus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TERTULIA_BUS", raising=False)
    assert isinstance(open_bus(settings.bus()), LocalBus)
    monkeypatch.setenv("TERTULIA_BUS", "nats://user:hidden@host")
    bus = open_bus(settings.bus())
    assert isinstance(bus, NatsBus)
    assert bus.connection.url == "nats://host:4222"
    for wrong in ("", "local", "local:x", "redis://me:hidden@host", "hidden"):
        with pytest.raises(ConfigurationError, match="there are: local:") as refused:
            open_bus(wrong)
        assert "hidden" not in str(refused.value)
