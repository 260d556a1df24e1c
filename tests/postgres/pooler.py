"""A pooler in transaction mode, as small as it can be: each transaction meets any connection.

Every client brings a connection of its own by logging in through it; from then on whoever is
between two transactions has none, and gets one of those that are free, by lot.
"""

from __future__ import annotations

import asyncio
import random
import struct
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import NamedTuple
from urllib.parse import urlsplit, urlunsplit


class Server(NamedTuple):
    """One connection to the server."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


class Pooler:
    """Runs on a thread of its own."""

    def __init__(self, server: str) -> None:
        parts = urlsplit(server)
        self._target = (parts.hostname or "", parts.port or 5432)
        self._loop = asyncio.new_event_loop()
        self._servers: list[Server] = []
        self._free: list[Server] = []
        self._luck = random.Random(7)
        self.moves = 0
        """How often a client met another connection than before."""
        started = threading.Event()
        self._thread = threading.Thread(target=self._main, args=(started,), daemon=True)
        self._thread.start()
        started.wait()
        user, _, _ = parts.netloc.rpartition("@")
        self.url = urlunsplit(parts._replace(netloc=f"{user}@127.0.0.1:{self._port}"))

    def close(self) -> None:
        """End it."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _main(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self._port = int(server.sockets[0].getsockname()[1])
        started.set()
        self._loop.run_forever()
        server.close()
        while tasks := asyncio.all_tasks(self._loop):
            for task in tasks:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        for each in self._servers:
            each.writer.transport.abort()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            last = await self._log_in(reader, writer)
            while True:
                first = await _message(reader)
                if first[0] == b"X":
                    break
                server = self._free.pop(self._luck.randrange(len(self._free)))
                self.moves += server is not last
                server.writer.write(first[1])
                await _transaction(reader, writer, server)
                self._free.append(last := server)
        except (OSError, EOFError):
            pass
        finally:
            writer.transport.abort()

    async def _log_in(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Server:
        """Hand on what both sides say until the server is ready."""
        (size,) = struct.unpack("!I", head := await reader.readexactly(4))
        first = head + await reader.readexactly(size - 4)
        if first[4:8] == struct.pack("!I", 80877103):  # asks for TLS: there is none
            writer.write(b"N")
            return await self._log_in(reader, writer)
        server = Server(*await asyncio.open_connection(*self._target))
        self._servers.append(server)
        server.writer.write(first)
        while True:
            kind, message = await _message(server.reader)
            writer.write(message)
            if kind == b"Z":
                self._free.append(server)
                return server
            if kind == b"R" and message[5:9] in {struct.pack("!I", n) for n in (3, 5, 10, 11)}:
                server.writer.write((await _message(reader))[1])


async def _message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readexactly(5)
    (size,) = struct.unpack("!I", head[1:])
    return head[:1], head + await reader.readexactly(size - 4)


async def _transaction(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: Server
) -> None:
    """Hand on what both say until the server is ready for another transaction.

    A client says nothing more between the end of one and the answer to it.
    """
    asked = asyncio.ensure_future(_hand_on(reader, server.writer))
    try:
        kind, message = await _message(server.reader)
        while kind != b"Z" or message[5:6] != b"I":
            writer.write(message)
            kind, message = await _message(server.reader)
    finally:
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
    writer.write(message)


async def _hand_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write((await _message(reader))[1])


@contextmanager
def pooled(server: str) -> Generator[Pooler]:
    """A pooler before a server, for a while."""
    pooler = Pooler(server)
    try:
        yield pooler
    finally:
        pooler.close()
