"""A TCP proxy before a server, which loses what a test wants it to lose."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit


class Proxy:
    """Runs on a thread of its own; its methods may be called from any."""

    def __init__(self, server: str) -> None:
        parts = urlsplit(server)
        self._target = (parts.hostname or "", parts.port or 5432)
        self._loop = asyncio.new_event_loop()
        self._pairs: list[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._lose_after: bytes | None = None
        self._flows = asyncio.Event()
        self._flows.set()
        self.lost = threading.Event()
        started = threading.Event()
        self._thread = threading.Thread(target=self._main, args=(started,), daemon=True)
        self._thread.start()
        started.wait()
        user, _, _ = parts.netloc.rpartition("@")
        self.url = urlunsplit(parts._replace(netloc=f"{user}@127.0.0.1:{self.port}"))

    def lose_reply_to(self, text: bytes) -> None:
        """Hand on the next request that has `text` in it, and cut where its reply comes."""
        self.lost.clear()
        self._lose_after = text

    def hold(self) -> None:
        """Hand on nothing, as a network does that is cut somewhere, and close nothing."""
        self._call(self._flows.clear)

    def let_go(self) -> None:
        """Hand on what was held, and all that comes."""
        self._call(self._flows.set)

    def cut(self) -> None:
        """Close every connection, at once."""
        self._call(self._cut)

    def _cut(self) -> None:
        for pair in self._pairs:
            for writer in pair:
                writer.transport.abort()
        self._pairs.clear()

    def close(self) -> None:
        """End it."""
        self._call(self._cut)
        self._call(self._loop.stop)
        self._thread.join()

    def _call(self, work: Callable[[], object]) -> None:
        self._loop.call_soon_threadsafe(work)

    def _main(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._accept, "127.0.0.1", 0))
        self.port = int(server.sockets[0].getsockname()[1])
        started.set()
        self._loop.run_forever()
        server.close()
        for task in self._tasks:
            task.cancel()
        everything = asyncio.gather(*self._tasks, return_exceptions=True)
        self._loop.run_until_complete(everything)
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            answers, requests = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        self._pairs.append((writer, requests))
        doomed = threading.Event()
        for work in (
            self._pump(reader, requests, doomed, outward=True),
            self._pump(answers, writer, doomed, outward=False),
        ):
            task = self._loop.create_task(work)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        doomed: threading.Event,
        *,
        outward: bool,
    ) -> None:
        try:
            while data := await reader.read(1 << 16):
                if outward and self._lose_after is not None and self._lose_after in data:
                    self._lose_after = None
                    doomed.set()
                if not outward and doomed.is_set():
                    self.lost.set()
                    break
                await self._flows.wait()
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            if doomed.is_set() and not outward:
                self._cut()
            writer.transport.abort()


@contextmanager
def proxied(server: str) -> Generator[Proxy]:
    """A proxy before a server, for a while."""
    proxy = Proxy(server)
    try:
        yield proxy
    finally:
        proxy.close()
