"""A connection to NATS: what it carries, what it refuses, and how it comes back."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from importlib import util

import pytest
from tests.bus.nats_helpers import connection, eventually, ignore, named, nats_threads

from tertulia.bus.nats_connection import NatsConnection
from tertulia.bus.nats_outbox import MAX_BYTES, MAX_MESSAGES
from tertulia.errors import ForkedRuntimeError, InvalidInput, MissingExtra, UsageError
from tertulia.testing.servers import NatsServer

Message = tuple[str, bytes, str]
SOCKETS = 32 * 1024 * 1024
"""Bytes that the sockets between us and a server may hold, at most."""


@pytest.fixture
def server() -> Iterator[NatsServer]:
    """A server that a test may stop."""
    own = NatsServer()
    yield own
    if own.pid:
        os.kill(own.pid, signal.SIGCONT)
    own.close()


async def test_a_message_comes_with_its_subject_and_reply(nats: str) -> None:
    heard: list[Message] = []
    async with connection(named(nats)) as one, connection(named(nats)) as other:
        other.subscribe("a.*", lambda subject, data, reply: heard.append((subject, data, reply)))
        await eventually(lambda: other.publish("a.b", b"ping") and heard)
        heard.clear()
        assert one.publish("a.b", b"\x00\xff", "inbox.1")
        await eventually(lambda: ("a.b", b"\x00\xff", "inbox.1") in heard)


async def test_what_is_published_after_subscribing_is_heard_in_its_order(nats: str) -> None:
    heard: list[bytes] = []
    async with connection(named(nats)) as one:
        one.subscribe("order", lambda subject, data, reply: heard.append(data))
        sent = [b"%d" % number for number in range(5_000)]
        assert [data for data in sent if not one.publish("order", data)] == []
        await eventually(lambda: len(heard) == len(sent))
    assert heard == sent


async def test_many_threads_may_publish(nats: str) -> None:
    heard: list[bytes] = []
    async with connection(named(nats)) as one:
        one.subscribe("threads", lambda subject, data, reply: heard.append(data))

        def publish(thread: int) -> None:
            for number in range(500):
                one.publish("threads", b"%d %d" % (thread, number))

        threads = [threading.Thread(target=publish, args=(each,)) for each in range(4)]
        for each in threads:
            each.start()
        await eventually(lambda: len(heard) == 2_000)
    for thread in range(4):
        own = [data for data in heard if data.startswith(b"%d " % thread)]
        assert own == [b"%d %d" % (thread, number) for number in range(500)]


async def test_a_subscription_that_was_undone_hears_nothing_more(nats: str) -> None:
    heard: list[bytes] = []
    ended: list[bytes] = []
    async with connection(named(nats)) as one:
        undo = one.subscribe("undone", lambda subject, data, reply: ended.append(data))
        one.subscribe("undone", lambda subject, data, reply: heard.append(data))
        one.publish("undone", b"1")
        await eventually(lambda: heard and ended)
        undo()
        undo()
        one.publish("undone", b"2")
        await eventually(lambda: len(heard) == 2)
    assert ended == [b"1"]


async def test_nothing_is_taken_before_there_is_a_connection() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        one = NatsConnection(f"nats://127.0.0.1:{taken.getsockname()[1]}")
        one.start()
        assert not one.publish("a", b"")
        assert not await one.ready(0.05)
        assert (one.connected, one.refused) == (False, 1)
        await one.close()


async def test_what_no_server_takes_is_refused(nats: str) -> None:
    async with connection(named(nats)) as one:
        assert not one.publish("large", b"x" * (1024 * 1024 + 1))
        for subject in ("", "a b", "a\r\nPUB x 0", "a..b", ".a", "a\n"):
            with pytest.raises(InvalidInput):
                one.publish(subject, b"")
            with pytest.raises(InvalidInput):
                one.publish("a", b"", subject or " ")
            with pytest.raises(InvalidInput):
                one.subscribe(subject, ignore)


async def test_it_comes_back_with_its_subscriptions_when_the_server_was_killed(
    server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[bytes] = []
    changes: list[bool] = []
    async with connection(server.url) as one:
        one.subscribe("again", lambda subject, data, reply: heard.append(data))
        one.on_change(changes.append)
        await eventually(lambda: changes == [True])
        os.kill(server.pid, signal.SIGKILL)
        await eventually(lambda: changes == [True, False])
        assert not one.publish("again", b"late")
        server.stop()
        server.start()
        await eventually(lambda: changes == [True, False, True])
        assert one.publish("again", b"new")
        await eventually(lambda: heard)
        assert heard == [b"new"]
    told = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert 1 <= len(told) <= 3
    assert all(record.name == "tertulia.nats" and not record.exc_info for record in told)


async def test_a_server_that_is_silent_is_noticed_and_a_flood_stays_bounded(
    server: NatsServer,
) -> None:
    async with connection(server.url) as one:
        os.kill(server.pid, signal.SIGSTOP)
        data = b"x" * 64 * 1024
        taken = 0
        while one.connected:
            taken += one.publish("flood", data)
            await asyncio.sleep(0)
        assert taken * len(data) <= MAX_BYTES + SOCKETS
        assert one.refused > 0
        assert one.lost > 0
        os.kill(server.pid, signal.SIGCONT)
        assert await one.ready(10)
        assert one.publish("flood", b"")


async def test_messages_that_wait_are_counted(server: NatsServer) -> None:
    async with connection(server.url) as one:
        os.kill(server.pid, signal.SIGSTOP)
        taken = sum(one.publish("flood", b"x" * 100) for _ in range(MAX_MESSAGES * 3))
        assert MAX_MESSAGES <= taken < MAX_MESSAGES * 3


async def test_closing_leaves_nothing_even_if_the_server_does_not_read(server: NatsServer) -> None:
    one = NatsConnection(server.url)
    one.subscribe("a", ignore)
    one.start()
    assert await one.ready(10)
    os.kill(server.pid, signal.SIGSTOP)
    for _ in range(100):
        one.publish("a", b"x" * 64 * 1024)
    before = len(nats_threads())
    await one.close()
    await one.close()
    assert len(nats_threads()) == before - 1
    del one
    gc.collect()  # a socket or a task that was left would warn here, which is an error


async def test_what_was_published_before_closing_is_sent(nats: str) -> None:
    heard: list[bytes] = []
    async with connection(named(nats)) as other:
        other.subscribe("last", lambda subject, data, reply: heard.append(data))
        await eventually(lambda: other.publish("last", b"0") and heard)
        heard.clear()
        async with connection(named(nats)) as one:
            for number in range(1_000):
                assert one.publish("last", b"n%d" % number)
        await eventually(lambda: b"n999" in heard)


async def test_one_that_was_closed_says_so(nats: str) -> None:
    one = NatsConnection(named(nats))
    one.close_now()
    assert not one.publish("a", b"")
    with pytest.raises(UsageError, match="is closed"):
        one.start()
    with pytest.raises(UsageError, match="is closed"):
        await one.ready(1)


async def test_closing_on_its_own_thread_is_refused(nats: str) -> None:
    refused: list[Exception] = []
    async with connection(named(nats)) as one:

        def close() -> None:
            try:
                one.close_now()
            except UsageError as error:
                refused.append(error)

        assert one.call_soon(close)
        await eventually(lambda: refused)
        assert one.connected


async def test_work_is_done_now_and_then_again_until_it_is_undone(nats: str) -> None:
    done: list[int] = []
    async with connection(named(nats)) as one:

        def work() -> None:
            done.append(1)
            raise ValueError("which must not end it")

        undo = one.call_every(0.01, work)
        await eventually(lambda: len(done) >= 3)
        undo()
        after: list[int] = []
        one.call_every(0.05, lambda: after.append(len(done)))
        await eventually(lambda: len(after) >= 3)
        assert after[1:] == [after[1]] * (len(after) - 1)


async def test_what_hears_may_raise(nats: str, caplog: pytest.LogCaptureFixture) -> None:
    heard: list[bytes] = []

    def hear(subject: str, data: bytes, reply: str) -> None:
        heard.append(data)
        raise ValueError("no")

    async with connection(named(nats)) as one:
        one.subscribe("raises", hear)
        one.publish("raises", b"1")
        one.publish("raises", b"2")
        await eventually(lambda: len(heard) == 2)
    assert "what hears raises raised" in caplog.text


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
async def test_a_forked_child_cannot_use_it_and_the_parent_still_can(nats: str) -> None:
    heard: list[bytes] = []
    async with connection(named(nats)) as one:
        one.subscribe("fork", lambda subject, data, reply: heard.append(data))
        one.publish("fork", b"before")
        await eventually(lambda: heard)
        child = os.fork()
        if child == 0:
            os._exit(_as_child(one))
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert one.publish("fork", b"after")
        await eventually(lambda: heard == [b"before", b"after"])


def _as_child(one: NatsConnection) -> int:
    """0 where the child is told that it may not."""
    try:
        one.start()
    except ForkedRuntimeError:
        refused = not one.publish("fork", b"child") and not one.connected
        one.close_now()
        del one
        gc.collect()
        return 0 if refused else 2
    return 1


def test_without_the_driver_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    found = util.find_spec

    def find_spec(name: str) -> object:
        return None if name == "nats" else found(name)

    monkeypatch.setattr("tertulia.bus.nats_connection.find_spec", find_spec)
    with pytest.raises(MissingExtra, match=r"pip install 'tertulia\[nats\]'"):
        NatsConnection("nats://localhost")
