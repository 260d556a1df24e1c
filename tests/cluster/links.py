"""A link between a worker and its database that can be cut, as a cable is: nobody is told."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Generator
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit

from tertulia.loop_thread import LoopThread


class Link:
    """Hands on what both sides send; while it is cut it keeps that, and closes nothing.

    What was on its way then arrives late, when it is healed. `url` is the database behind it.
    """

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        self._target = (parts.hostname or "", parts.port or 5432)
        self._thread = LoopThread("link")
        self._writers: set[asyncio.StreamWriter] = set()
        self._whole = asyncio.Event()
        self._whole.set()
        ready = threading.Event()
        self._thread.submit(self._listen(ready))
        ready.wait()
        user, _, _ = parts.netloc.rpartition("@")
        self.url = urlunsplit(parts._replace(netloc=f"{user}@127.0.0.1:{self._port}"))

    def cut(self) -> None:
        """From now on nothing arrives."""
        self._thread.loop.call_soon_threadsafe(self._whole.clear)

    def heal(self) -> None:
        """From now on all arrives, also what was sent meanwhile."""
        self._thread.loop.call_soon_threadsafe(self._whole.set)

    def close(self) -> None:
        """End it."""
        self.heal()
        self._thread.submit(self._close()).wait()
        self._thread.stop()

    async def _listen(self, ready: threading.Event) -> None:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self._port = int(self._server.sockets[0].getsockname()[1])
        ready.set()

    async def _close(self) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            await self._whole.wait()
            answers, requests = await asyncio.open_connection(*self._target)
            self._writers.add(requests)
            await asyncio.gather(self._pump(reader, requests), self._pump(answers, writer))
        except OSError:
            writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                await self._whole.wait()
                writer.write(data)
                await writer.drain()
        await self._whole.wait()
        writer.transport.abort()
        self._writers.discard(writer)


@contextmanager
def linked(address: str) -> Generator[Link]:
    """A link to a database, for a while."""
    link = Link(address)
    try:
        yield link
    finally:
        link.close()
