"""A small HTTP server that answers as it is told, and refuses what a provider would refuse."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from threading import Thread
from typing import Any, cast

Reply = Callable[[asyncio.StreamWriter], Awaitable[None]]
Check = Callable[[dict[str, Any], str], str | None]
"""What is wrong with a request, by its body and its head; None where nothing is."""


class Server:
    """What it was asked, and what it is to answer."""

    def __init__(self, check: Check) -> None:
        self.requests: list[dict[str, Any]] = []
        self.headers: list[str] = []
        self.replies: list[Reply] = []
        self.problems: list[str] = []
        """What was wrong with requests; each of them was answered with a 400."""
        self.choose: Callable[[dict[str, Any]], Reply] | None = None
        """Finds the answer to a request, instead of `replies`."""
        self.hung_up = asyncio.Event()
        """A client went away before its answer was whole."""
        self.url = ""
        self._check = check
        self._connections: dict[asyncio.Task[Any], asyncio.StreamWriter] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        self._connections[task] = writer
        begun = b""
        try:
            while True:
                head = (begun + await reader.readuntil(b"\r\n\r\n")).decode()
                length = int(head.lower().partition("content-length:")[2].split("\r\n")[0])
                body = json.loads(await reader.readexactly(length))
                self.headers.append(head)
                self.requests.append(body)
                begun = await self._answer(self._reply(body, head), reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            del self._connections[task]
            writer.close()

    def _reply(self, body: dict[str, Any], head: str) -> Reply:
        problem = self._check(body, head)
        if problem is not None:
            self.problems.append(problem)
            return status(400, problem)
        if self.choose is not None:
            return self.choose(body)
        if not self.replies:
            self.problems.append("nothing was to be answered to this request")
            return status(501, self.problems[-1], headers={"x-should-retry": "false"})
        return self.replies.pop(0)

    async def _answer(
        self, reply: Reply, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bytes:
        """Answer until it is done or the client has gone; what has come of the next request."""
        work = asyncio.ensure_future(_whole(reply, writer))
        gone = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                self.hung_up.set()
                raise ConnectionError
            work.result()
            return gone.result() if gone.done() else b""
        finally:
            work.cancel()
            gone.cancel()
            await asyncio.wait({work, gone})
            if work.done() and not work.cancelled():
                work.exception()

    async def close(self) -> None:
        """End what is still being answered."""
        for writer in self._connections.values():
            writer.transport.abort()
        if self._connections:
            await asyncio.wait(list(self._connections))


async def _whole(reply: Reply, writer: asyncio.StreamWriter) -> None:
    await reply(writer)
    await writer.drain()


@contextmanager
def elsewhere(server: Callable[[], AbstractAsyncContextManager[Server]]) -> Generator[Server]:
    """A server on a thread and an event loop of its own."""
    started: Future[tuple[Server, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def serve() -> None:
        async with server() as made:
            ended = asyncio.Event()
            started.set_result((made, asyncio.get_running_loop(), ended))
            await ended.wait()

    thread = Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    made, loop, ended = started.result(10)
    try:
        yield made
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(10)


@asynccontextmanager
async def serving(check: Check, path: str = "") -> AsyncGenerator[Server]:
    """A server on a free port of this machine."""
    made = Server(check)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}{path}"
    try:
        yield made
    finally:
        server.close()
        await made.close()


def stream(*pieces: bytes, whole: bool = True, after: Reply | None = None) -> Reply:
    """Answer with a stream; one that is not whole breaks the connection at its end.

    `after` is awaited before the end.
    """

    async def reply(writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )
        for piece in pieces:
            writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            await writer.drain()
        if after is not None:
            await after(writer)
        if not whole:
            raise ConnectionError
        writer.write(b"0\r\n\r\n")

    return reply


def body(content: bytes, code: int, kind: str, headers: Mapping[str, str] | None = None) -> Reply:
    """Answer with a body as it is."""

    async def reply(writer: asyncio.StreamWriter) -> None:
        extra = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        writer.write(
            f"HTTP/1.1 {code} Status\r\ncontent-type: {kind}\r\n{extra}"
            f"content-length: {len(content)}\r\n\r\n".encode()
            + content
        )

    return reply


def status(code: int, message: str = "no", headers: Mapping[str, str] | None = None) -> Reply:
    """Answer with an error; without other headers the client may try again at once."""
    error = {"message": message, "type": "some_error", "code": None}
    content = json.dumps({"type": "error", "error": error}).encode()
    return body(content, code, "application/json", headers or {"retry-after-ms": "1"})


async def never(writer: asyncio.StreamWriter) -> None:
    """Answer with nothing, until the client goes."""
    await asyncio.Event().wait()


def hang_up() -> Reply:
    """Close the connection without an answer."""

    async def reply(writer: asyncio.StreamWriter) -> None:
        raise ConnectionError

    return reply
