"""The client of the live benchmarks: as little as can be, so that it is never what is measured.

It speaks the wire protocol of a live session: one `system.init`, whose answer says that the
server is ready (a bare echo answers with the same frame), then one message at a time.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import picows

from benchmarks.live_settings import HOST

CONNECTING = 50
"""How many connect at once."""
TIME_LIMIT = 30.0

clock = time.perf_counter


def frame(kind: str, **fields: Any) -> bytes:
    """One event as it goes over the wire."""
    return json.dumps({"type": kind, **fields}).encode()


CONTEXT = {"initial_variables": {}, "conversation_type": "chat"}
INIT = frame("system.init", version="1.0.0", session_context=CONTEXT)
TEXT = "Where is my order? It was to be here yesterday."
ECHO = frame("bench.echo", text=TEXT, number=1234)
MARK = b'"bench.echo"'


class Connection(picows.WSListener):
    """One connection; `came` gets each frame after the first."""

    def __init__(self) -> None:
        self.transport: picows.WSTransport
        self.ready = asyncio.get_running_loop().create_future()

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        self.transport = transport
        self.send(INIT)

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        if frame.msg_type is picows.WSMsgType.CLOSE:
            self.fail(f"the server closed: {frame.get_close_code()} {frame.get_close_reason()}")
            transport.send_close(picows.WSCloseCode.OK)
            transport.disconnect()
        elif self.ready.done():
            self.came(frame.get_payload_as_bytes())
        else:
            self.ready.set_result(None)

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        self.fail("the connection was lost")

    def send(self, message: bytes) -> None:
        self.transport.send(picows.WSMsgType.BINARY, message)

    def came(self, message: bytes) -> None:
        """A frame has come."""

    def fail(self, why: str) -> None:
        """The connection is over."""
        if not self.ready.done():
            self.ready.set_exception(ConnectionError(why))

    async def close(self) -> None:
        """Say goodbye for good, and wait until the server has said it too."""
        if not self.transport.is_disconnected:
            self.transport.send_close(picows.WSCloseCode.OK)
        await asyncio.wait_for(self.transport.wait_disconnected(), TIME_LIMIT)

    async def drop(self) -> None:
        """Go without a word, as a lost connection does."""
        self.transport.disconnect(graceful=False)
        await asyncio.wait_for(self.transport.wait_disconnected(), TIME_LIMIT)


Kind = TypeVar("Kind", bound=Connection)


async def connect(port: int, kind: Callable[[], Kind]) -> Kind:
    """A connection that the server has answered. Raises ConnectionError."""
    url = f"ws://{HOST}:{port}/ws"
    _, listener = await picows.ws_connect(kind, url, websocket_handshake_timeout=TIME_LIMIT)
    made: Any = listener
    await asyncio.wait_for(made.ready, TIME_LIMIT)
    return made


@asynccontextmanager
async def connected(port: int, kind: Callable[[], Kind], count: int) -> AsyncIterator[list[Kind]]:
    """So many connections, all ready; they are closed at the end."""
    gate = asyncio.Semaphore(CONNECTING)

    async def one() -> Kind:
        async with gate:
            return await connect(port, kind)

    made = await asyncio.gather(*(one() for _ in range(count)))
    try:
        yield made
    finally:
        await asyncio.gather(*(connection.close() for connection in made))


class Echoing(Connection):
    """Sends the next message when the last one is back, for as long as it is told to."""

    going = False

    def begin(self) -> None:
        self.taken: list[float] = []
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.going = True
        self._next()

    async def end(self) -> list[float]:
        """Stop after the message that is under way; the seconds of each."""
        self.going = False
        await asyncio.wait_for(self.over, TIME_LIMIT)
        return self.taken

    def came(self, message: bytes) -> None:
        if MARK not in message:
            self.fail(f"not an echo: {message[:200]!r}")
            return
        self.taken.append(clock() - self.sent)
        if self.going:
            self._next()
        else:
            self.over.set_result(None)

    def _next(self) -> None:
        self.sent = clock()
        self.send(ECHO)

    def fail(self, why: str) -> None:
        super().fail(why)
        if hasattr(self, "over") and not self.over.done():
            self.over.set_exception(ConnectionError(why))


class Listening(Connection):
    """Asks, is answered without an end, and interrupts: notes when the last chunk came."""

    REQUEST = frame("system.llm.request")
    INTERRUPT = frame("system.control.interrupt")

    def __init__(self) -> None:
        super().__init__()
        self.chunks = 0
        self.last = 0.0
        self.ended = asyncio.Event()
        self.lost: str | None = None

    def ask(self) -> None:
        self.ended.clear()
        self.send(self.REQUEST)

    def came(self, message: bytes) -> None:
        if b'"agent.llm.response.chunk"' in message:
            self.chunks += 1
            self.last = clock()
        elif b'"agent.llm.response.end"' in message:
            self.ended.set()

    def fail(self, why: str) -> None:
        super().fail(why)
        self.lost = why
        self.ended.set()

    async def interrupt(self, quiet: float) -> tuple[float, float]:
        """The seconds from the interrupt to the last chunk, and to the end of the answer."""
        sent = clock()
        self.send(self.INTERRUPT)
        await asyncio.wait_for(self.ended.wait(), TIME_LIMIT)
        ended = clock()
        await asyncio.sleep(quiet)
        if self.lost is not None:
            raise ConnectionError(self.lost)
        return max(0.0, self.last - sent), ended - sent
