"""Channels over a NATS that is killed, that loses messages, and that is not there."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncGenerator

import pytest
from tests.cluster.boards import Found, Row, nats_board, read_out, served
from tests.cluster.peer import handlers

from tertulia.bus.nats_connection import NatsConnection
from tertulia.cluster import HttpPipe, NatsPipe, NotDelivered, Switchboard
from tertulia.cluster.links import BEAT, SILENCE
from tertulia.errors import WorkerLost
from tertulia.server.peers import Peers
from tertulia.testing.servers import NatsServer


class Lossy(NatsConnection):
    """Loses the messages that a test names by their count, and repeats others."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.lose: set[int] = set()
        self.repeat: set[int] = set()
        self.count = 0

    def publish(self, subject: str, data: bytes, reply: str = "") -> bool:
        self.count += 1
        if self.count in self.lose:
            return True
        if self.count in self.repeat:
            super().publish(subject, data, reply)
        return super().publish(subject, data, reply)


@contextlib.asynccontextmanager
async def lossy(address: str) -> AsyncGenerator[tuple[Lossy, Switchboard]]:
    """A worker whose messages get lost."""
    connection = Lossy(address)
    connection.start()
    board = Switchboard(os.urandom(16), NatsPipe(connection))
    handlers(board)
    assert await connection.ready(10)
    await board.start()
    connection.count = 0
    try:
        yield connection, board
    finally:
        await board.close()
        await connection.close()


async def test_a_lost_message_ends_the_channel_and_is_not_missing_in_silence(nats: str) -> None:
    async with (
        lossy(nats) as (connection, here),
        nats_board(os.urandom(16), nats, handlers) as there,
    ):
        channel = await here.open(there.worker, "echo", b"head")
        assert await channel.receive() == b"head"
        connection.lose.add(connection.count + 3)
        for number in range(5):
            await channel.send(b"%d" % number)
        with pytest.raises(WorkerLost):
            await asyncio.wait_for(read_out(channel), 5)
        assert there.stats().channels == 0


async def test_a_message_that_is_lost_last_is_noticed_by_the_next_beat(nats: str) -> None:
    async with (
        lossy(nats) as (connection, here),
        nats_board(os.urandom(16), nats, handlers) as there,
    ):
        channel = await here.open(there.worker, "echo", b"head")
        assert await channel.receive() == b"head"
        connection.lose.add(connection.count + 1)
        await channel.send(b"the last one")
        with pytest.raises(WorkerLost):
            await asyncio.wait_for(channel.receive(), 5)


async def test_a_message_that_comes_twice_is_received_once(nats: str) -> None:
    async with (
        lossy(nats) as (connection, here),
        nats_board(os.urandom(16), nats, handlers) as there,
    ):
        connection.repeat.update(range(1, 100))
        channel = await here.open(there.worker, "echo", b"head")
        assert await channel.receive() == b"head"
        for number in range(10):
            await channel.send(b"%d" % number)
            assert await channel.receive() == b"%d" % number
        await channel.end()
        assert await channel.receive() is None
        assert there.stats().accepted == 1


async def test_channels_are_lost_with_nats_and_opened_again_when_it_is_back() -> None:
    server = NatsServer()
    try:
        async with (
            nats_board(os.urandom(16), server.url, handlers) as here,
            nats_board(os.urandom(16), server.url, handlers) as there,
        ):
            channel = await here.open(there.worker, "echo", b"head")
            assert await channel.receive() == b"head"
            await asyncio.to_thread(server.stop)
            with pytest.raises(WorkerLost):
                await asyncio.wait_for(channel.receive(), 8)
            with pytest.raises(NotDelivered):
                await here.open(there.worker, "echo", b"head")
            await asyncio.to_thread(server.start)
            async with asyncio.timeout(20):
                while True:
                    with contextlib.suppress(WorkerLost):
                        again = await here.open(there.worker, "echo", b"again")
                        break
                    await asyncio.sleep(0.05)
            assert await again.receive() == b"again"
            await again.close()
    finally:
        await asyncio.to_thread(server.close)


async def test_a_worker_that_is_not_on_nats_is_reached_over_http(nats: str, found: Found) -> None:
    async def find(worker: bytes) -> Row | None:
        return found.get(worker)

    elsewhere = HttpPipe(find)
    there = Switchboard(os.urandom(16), elsewhere)
    handlers(there)
    connection = NatsConnection(nats)
    connection.start()
    assert await connection.ready(10)
    here = Switchboard(os.urandom(16), NatsPipe(connection), HttpPipe(find))
    async with served(Peers(elsewhere)) as url:
        found[there.worker] = Row(url, elsewhere.secret)
        await there.start()
        await here.start()
        for _ in range(3):
            channel = await here.open(there.worker, "echo", b"by another way")
            assert await channel.receive() == b"by another way"
            await channel.close()
        assert there.stats().accepted == 3
        await here.close()
        await there.close()
    await connection.close()


async def test_a_worker_whose_loop_is_blocked_is_not_lost(nats: str) -> None:
    async with (
        nats_board(os.urandom(16), nats, handlers) as here,
        nats_board(os.urandom(16), nats, handlers) as there,
    ):
        channel = await here.open(there.worker, "echo", b"")
        assert await channel.receive() == b""
        threading.Event().wait(SILENCE + 2 * BEAT)  # what blocks holds up no beat
        await channel.send(b"still here")
        assert await channel.receive() == b"still here"
        await channel.close()


async def test_what_is_no_frame_is_dropped_and_counted(nats: str) -> None:
    async with (
        lossy(nats) as (connection, here),
        nats_board(os.urandom(16), nats, handlers) as there,
    ):
        subject = f"tertulia.{connection.name}.to.{there.worker.hex()}"
        for garbage in (b"", b"x", os.urandom(43), os.urandom(60_000), bytes(200_000)):
            connection.publish(subject, garbage)
            connection.publish(f"{subject}.x.y.z", garbage)
        channel = await here.open(there.worker, "echo", b"fine")
        assert await channel.receive() == b"fine"
        assert there.stats().malformed == 5
        await channel.close()
