"""Switchboards for tests: over a real NATS, or behind a real server on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import socket
from collections.abc import AsyncGenerator, Callable, Generator
from pathlib import Path
from typing import NamedTuple

import uvicorn
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from tests.crash.children import Child

from tertulia.bus.nats_connection import NatsConnection
from tertulia.cluster.channels import Channel
from tertulia.cluster.http import HttpPipe
from tertulia.cluster.nats import NatsPipe
from tertulia.cluster.switchboard import Switchboard
from tertulia.server.peers import PATH, Peers


class Row(NamedTuple):
    """Where a worker is reached."""

    url: str | None
    secret: str | None


Found = dict[bytes, Row]
Prepare = Callable[[Switchboard], None]


async def read_out(channel: Channel) -> list[bytes]:
    """What comes until the end. Raises what the channel raises."""
    found: list[bytes] = []
    while (data := await channel.receive()) is not None:
        found.append(data)
    return found


class Peer(Child):
    """The program `peer` in a process of its own."""

    def __init__(self, pipe: str, address: str, found: Found) -> None:
        super().__init__(str(Path(__file__).with_name("peer")), pipe, address)
        self._found = found

    @functools.cached_property
    def worker(self) -> bytes:
        """Its uid, once it serves."""
        told = json.loads(self.hear())
        worker = bytes.fromhex(told["worker"])
        if "url" in told:
            self._found[worker] = Row(told["url"], told["secret"])
        return worker


class _Server(uvicorn.Server):
    """One that leaves the signals of the process alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


@contextlib.asynccontextmanager
async def served(peers: Peers) -> AsyncGenerator[str]:
    """A server that accepts peers, on a free port: its address."""
    config = uvicorn.Config(
        Starlette(routes=[WebSocketRoute(PATH, peers)]),
        ws="websockets-sansio",
        ws_max_size=256 * 1024,
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=5,
    )
    server = _Server(config)
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", 0))
    listener.listen(100)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


@contextlib.asynccontextmanager
async def nats_board(worker: bytes, address: str, prepare: Prepare) -> AsyncGenerator[Switchboard]:
    """A switchboard over NATS, with a connection of its own."""
    connection = NatsConnection(address)
    board = Switchboard(worker, NatsPipe(connection))
    prepare(board)
    connection.start()
    try:
        assert await connection.ready(10)
        await board.start()
        yield board
    finally:
        await board.close()
        await connection.close()


@contextlib.asynccontextmanager
async def http_board(worker: bytes, found: Found, prepare: Prepare) -> AsyncGenerator[Switchboard]:
    """A switchboard over HTTP, with a server of its own; it puts its row into `found`."""

    async def find(wanted: bytes) -> Row | None:
        return found.get(wanted)

    pipe = HttpPipe(find)
    board = Switchboard(worker, pipe)
    prepare(board)
    async with served(Peers(pipe)) as url:
        found[worker] = Row(url, pipe.secret)
        await board.start()
        try:
            yield board
        finally:
            await board.close()
