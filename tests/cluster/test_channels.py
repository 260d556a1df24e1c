"""What a channel does, between two switchboards over a real NATS and a real server."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import threading

import pytest
from tests.cluster.conftest import Two

from tertulia.cluster import Channel, ChannelClosed, NotDelivered, Switchboard
from tertulia.cluster.windows import MESSAGE_LIMIT, WINDOW, WINDOW_FRAMES
from tertulia.doors import call
from tertulia.errors import InvalidInput, UsageError, WorkerLost


async def settled(board: Switchboard) -> None:
    """Wait until a worker has no channel and no handler any more."""
    async with asyncio.timeout(10):
        while board.stats().channels or board.stats().handlers:
            await asyncio.sleep(0.005)


async def test_a_handler_gets_the_head_and_its_answer_comes_back(two: Two) -> None:
    channel = await two.here.open(two.there.worker, "answer", b"me")
    assert await channel.receive() == b"answer to me"
    assert await channel.receive() is None
    assert await channel.receive() is None
    await channel.close()
    await settled(two.there)


async def test_one_send_is_one_receive_whatever_its_size(two: Two) -> None:
    sizes = [0, 1, 64_999, 65_000, 65_001, 200_000, 0, WINDOW + 1, MESSAGE_LIMIT, 7]
    sent = [os.urandom(size) for size in sizes]
    channel = await two.here.open(two.there.worker, "echo", sent[-2])
    assert await channel.receive() == sent[-2]

    async def send_all() -> None:
        for data in sent:
            await channel.send(data)
        await channel.end()

    async with asyncio.TaskGroup() as group:
        group.create_task(send_all())
        for data in sent:
            assert await channel.receive() == data
    assert await channel.receive() is None


async def test_many_channels_at_once_keep_their_messages_apart(two: Two) -> None:
    async def converse(number: int, frm: Switchboard, to: Switchboard) -> None:
        channel = await frm.open(to.worker, "echo", f"head {number}".encode())
        assert await channel.receive() == f"head {number}".encode()
        for turn in range(5):
            await channel.send(f"{number}.{turn}".encode())
            assert await channel.receive() == f"{number}.{turn}".encode()
        await channel.end()
        assert await channel.receive() is None

    async with asyncio.TaskGroup() as group:
        for number in range(50):
            group.create_task(converse(number, two.here, two.there))
            group.create_task(converse(number, two.there, two.here))
    await settled(two.here)
    await settled(two.there)


async def test_messages_of_senders_at_once_on_one_channel_are_not_mixed(two: Two) -> None:
    channel = await two.here.open(two.there.worker, "echo", b"")
    assert await channel.receive() == b""
    letters = b"abcdef"

    async def send(letter: int) -> None:
        await channel.send(bytes([letter]) * 300_000)

    async with asyncio.TaskGroup() as group:
        for letter in letters:
            group.create_task(send(letter))
        came = [await channel.receive() for _ in letters]
    assert came == [bytes([letter]) * 300_000 for letter in letters]
    await channel.close()


@pytest.mark.parametrize(("size", "most"), [(1_000, WINDOW_FRAMES - 1), (50_000, WINDOW // 50_000)])
async def test_a_reader_that_does_not_read_holds_the_sender_back(
    two: Two, size: int, most: int
) -> None:
    channel = await two.here.open(two.there.worker, "waits", b"")
    assert await channel.receive() == b"waits"
    sent = 0

    async def send_on() -> None:
        nonlocal sent
        while True:
            await channel.send(bytes(size))
            sent += 1

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(send_on(), 0.3)
    assert sent == most  # the head has used one frame
    await channel.close()


async def test_what_waits_for_room_goes_on_when_there_is_some(two: Two) -> None:
    channel = await two.here.open(two.there.worker, "pour", json.dumps([500, 5_000]).encode())
    count = 0
    while (data := await channel.receive()) is not None:
        assert data == bytes(5_000)
        count += 1
    assert count == 500


async def test_an_error_of_a_handler_is_told_by_its_type_only(
    two: Two, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, "tertulia.cluster"):
        channel = await two.here.open(two.there.worker, "fails", b"")
        with pytest.raises(ChannelClosed) as refused:
            await channel.receive()
    assert refused.value.reason == "KeyError"
    assert "secret" not in str(refused.value)
    assert not channel.undelivered
    assert "a secret" in caplog.text
    with pytest.raises(ChannelClosed):
        await channel.send(b"more")
    assert two.there.stats().failed == 1


async def test_a_kind_that_nobody_serves_is_refused(two: Two) -> None:
    channel = await two.here.open(two.there.worker, "unknown", b"")
    with pytest.raises(ChannelClosed, match="does not serve this kind"):
        await channel.receive()
    assert channel.undelivered
    assert two.there.stats().refused == 1
    assert two.here.channels == 0


async def test_more_channels_than_the_limit_are_refused(two: Two) -> None:
    two.there._limit = 3  # pyright: ignore[reportPrivateUsage]
    held = [await two.here.open(two.there.worker, "waits", b"") for _ in range(3)]
    for channel in held:
        assert await channel.receive() == b"waits"
    refused = await two.here.open(two.there.worker, "waits", b"")
    with pytest.raises(ChannelClosed, match="too many"):
        await refused.receive()
    with pytest.raises(NotDelivered, match="too many"):
        await two.there.open(two.here.worker, "waits", b"")
    await held[0].close()
    await settled_to(two.there, 2)
    again = await two.here.open(two.there.worker, "waits", b"")
    assert await again.receive() == b"waits"


async def settled_to(board: Switchboard, handlers: int) -> None:
    """Wait until so many handlers run."""
    async with asyncio.timeout(10):
        while board.stats().handlers != handlers:
            await asyncio.sleep(0.005)


async def test_closing_a_channel_cancels_its_handler(two: Two) -> None:
    channel = await two.here.open(two.there.worker, "waits", b"")
    assert await channel.receive() == b"waits"
    await channel.close()
    await settled(two.there)
    with pytest.raises(ChannelClosed):
        await channel.receive()
    with pytest.raises(ChannelClosed):
        await channel.send(b"")
    await channel.close()


async def test_each_direction_ends_for_itself(two: Two) -> None:
    data = [os.urandom(1000) for _ in range(5)]
    channel = await two.here.open(two.there.worker, "digest", b"")
    for each in data:
        await channel.send(each)
    await channel.end()
    await channel.end()
    with pytest.raises(UsageError):
        await channel.send(b"too late")
    told = json.loads(await channel.receive() or b"")
    assert told == [5, 5000, hashlib.sha256(b"".join(data)).hexdigest()]
    assert await channel.receive() is None


async def test_a_sender_that_is_cancelled_in_the_middle_has_closed_the_channel(two: Two) -> None:
    channel = await two.here.open(two.there.worker, "waits", b"")
    assert await channel.receive() == b"waits"
    await channel.send(b"this is not read, so no large message is let in behind it")
    sending = asyncio.create_task(channel.send(bytes(MESSAGE_LIMIT)))
    await asyncio.sleep(0.1)
    assert not sending.done()
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    with pytest.raises(ChannelClosed):
        await channel.receive()
    await settled(two.there)


async def test_a_receiver_that_is_cancelled_loses_nothing(two: Two) -> None:
    channel = await two.here.open(two.there.worker, "echo", b"0")
    assert await channel.receive() == b"0"
    for number in range(20):
        waiting = asyncio.create_task(channel.receive())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        await channel.send(b"%d" % number)
        assert await channel.receive() == b"%d" % number
    await channel.close()


async def test_a_channel_is_used_from_another_thread_without_a_loop(two: Two) -> None:
    async def ask() -> tuple[bytes | None, bytes | None]:
        channel = await two.here.open(two.there.worker, "echo", b"from a thread")
        await channel.send(bytes(WINDOW * 2))
        return await channel.receive(), await channel.receive()

    head, data = await asyncio.to_thread(lambda: call(ask()))
    assert head == b"from a thread"
    assert data == bytes(WINDOW * 2)


async def test_closing_a_switchboard_ends_its_handlers_and_tells_the_others(two: Two) -> None:
    channel = await two.here.open(two.there.worker, "waits", b"")
    assert await channel.receive() == b"waits"
    await two.there.close()
    with pytest.raises(WorkerLost):
        await channel.receive()
    assert two.there.stats().handlers == 0
    with pytest.raises(UsageError):
        await two.there.open(two.here.worker, "echo", b"")
    while two.here.stats().links:
        await asyncio.sleep(0.005)
    with pytest.raises(NotDelivered):
        await two.here.open(two.there.worker, "echo", b"")


async def test_wrong_calls_say_what_is_wrong(two: Two) -> None:
    with pytest.raises(InvalidInput, match="the worker itself"):
        await two.here.open(two.here.worker, "echo", b"")
    with pytest.raises(InvalidInput, match="too many for one message"):
        await two.here.open(two.there.worker, "echo", bytes(MESSAGE_LIMIT + 1))
    with pytest.raises(InvalidInput, match="kind of channel"):
        await two.here.open(two.there.worker, "", b"")
    with pytest.raises(UsageError, match="started once"):
        await two.here.start()
    with pytest.raises(InvalidInput, match="16 bytes"):
        Switchboard(b"short")

    async def other(head: bytes, channel: Channel) -> None:
        """Is never called."""

    with pytest.raises(UsageError, match="served already"):
        two.here.serve("echo", other)
    channel = await two.here.open(two.there.worker, "waits", b"")
    with pytest.raises(InvalidInput, match="too many for one message"):
        await channel.send(bytes(MESSAGE_LIMIT + 1))
    await channel.close()


@pytest.mark.parametrize(
    "count", [300, pytest.param(10_000, marks=[pytest.mark.soak, pytest.mark.timeout(300)])]
)
async def test_channels_opened_and_closed_leave_nothing(two: Two, count: int) -> None:
    tasks = len(asyncio.all_tasks())
    threads = threading.active_count()
    for number in range(count):
        kind = ("answer", "waits", "fails", "unknown")[number % 4]
        channel = await two.here.open(two.there.worker, kind, b"")
        if number % 3:
            with contextlib.suppress(ChannelClosed):
                await channel.receive()
        await channel.close()
    await settled(two.there)
    await settled(two.here)
    assert two.here.stats().links + two.there.stats().links <= 2
    assert len(asyncio.all_tasks()) <= tasks + 6  # one connection, where it is over HTTP
    assert threading.active_count() <= threads + 1
