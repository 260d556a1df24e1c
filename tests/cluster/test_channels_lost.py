"""Workers that are killed, stopped or parted are noticed, and nothing is missing in silence."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable

import pytest
from tests.cluster.boards import Found, Peer, http_board, nats_board, read_out
from tests.cluster.peer import handlers

from tertulia.cluster import Channel, NotDelivered, Switchboard
from tertulia.errors import WorkerLost

NOTICED = 8.0
"""Seconds in which a loss is noticed even on a busy machine; 2.5 otherwise."""


async def told_lost(channel: Channel) -> None:
    """Wait until the channel says that the worker is lost, whatever came before."""
    async with asyncio.timeout(NOTICED):
        with pytest.raises(WorkerLost):
            await read_out(channel)
    assert not channel.undelivered


async def no_channels(board: Switchboard) -> None:
    """Wait until a worker has no channel and no handler any more."""
    async with asyncio.timeout(NOTICED):
        while board.stats().channels or board.stats().handlers:
            await asyncio.sleep(0.01)


async def test_kill_9_of_a_worker_is_noticed_on_all_its_channels(
    here: Switchboard, new_peer: Callable[[], Peer]
) -> None:
    peer, other = new_peer(), new_peer()
    channels = [await here.open(peer.worker, "waits", b"") for _ in range(20)]
    kept = await here.open(other.worker, "echo", b"")
    for channel in channels:
        assert await channel.receive() == b"waits"
    peer.kill()
    for channel in channels:
        await told_lost(channel)
        with pytest.raises(WorkerLost):
            await channel.send(b"x")
    assert await kept.receive() == b""
    await kept.send(b"the others stay")
    assert await kept.receive() == b"the others stay"
    await kept.close()
    with pytest.raises(WorkerLost):
        await (await here.open(peer.worker, "echo", b"")).receive()
    await no_channels(here)


async def test_who_waits_to_send_or_opens_a_channel_to_a_stopped_worker_is_told(
    here: Switchboard, new_peer: Callable[[], Peer]
) -> None:
    peer, stranger = new_peer(), new_peer()
    unknown = stranger.worker
    channel = await here.open(peer.worker, "waits", b"")
    assert await channel.receive() == b"waits"
    peer.stop()
    stranger.stop()

    async def send_on() -> None:
        while True:
            await channel.send(bytes(60_000))

    came = await asyncio.wait_for(
        asyncio.gather(send_on(), here.open(unknown, "echo", b""), return_exceptions=True),
        NOTICED,
    )
    assert [isinstance(each, WorkerLost) for each in came] == [True, True], came
    await told_lost(channel)
    peer.go_on()
    again = await opened_again(here, peer)
    assert await again.receive() == b"again"
    await again.close()
    peer.tell()
    assert peer.end() == ['{"tasks": 0, "threads": []}']


async def opened_again(here: Switchboard, peer: Peer) -> Channel:
    """A channel to a worker that has just come back."""
    async with asyncio.timeout(NOTICED):
        while True:
            try:
                return await here.open(peer.worker, "echo", b"again")
            except WorkerLost:
                await asyncio.sleep(0.05)


async def test_a_handler_is_cancelled_when_the_worker_that_asked_is_killed(
    pipe: str, nats: str, found: Found, here: Switchboard, new_peer: Callable[[], Peer]
) -> None:
    peer = new_peer()
    channel = await here.open(peer.worker, "waits", b"")
    assert await channel.receive() == b"waits"
    before = await stats_of(here, peer)
    assert (before["handlers"], before["cancelled"]) == (2, 0)
    asking = os.urandom(16)
    made = nats_board(asking, nats, handlers)
    async with made if pipe == "nats" else http_board(asking, found, handlers) as board:
        second = await board.open(peer.worker, "waits", b"")
        assert await second.receive() == b"waits"
    async with asyncio.timeout(NOTICED):
        while (after := await stats_of(here, peer))["cancelled"] != 1:
            await asyncio.sleep(0.05)
    assert after["handlers"] == 2  # the first one, and that which tells
    await channel.close()


async def stats_of(here: Switchboard, peer: Peer) -> dict[str, int]:
    """What another worker says of itself."""
    channel = await here.open(peer.worker, "stats", b"")
    return json.loads(await channel.receive() or b"")


async def test_a_worker_that_nobody_is_was_not_delivered_to(here: Switchboard) -> None:
    began = time.monotonic()
    with pytest.raises(NotDelivered):
        await here.open(os.urandom(16), "echo", b"")
    assert time.monotonic() - began < NOTICED
    assert here.stats().channels == 0
