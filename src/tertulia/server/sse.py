"""Server-sent events: an answer that goes on as long as there is something to tell."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import msgspec
from starlette.types import Receive, Scope, Send

from tertulia.doors import Outcome
from tertulia.server import problems
from tertulia.server.problems import ErrorShown

KEEP_ALIVE = 15.0
"""Seconds of silence after which a comment is sent, so that nobody on the way hangs up."""
STALLED = 60.0
"""Seconds that a client may leave what it is sent unread; then the stream is cut off."""
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
    (b"x-content-type-options", b"nosniff"),
]


class Failure(msgspec.Struct, frozen=True, tag_field="type", tag="error"):
    """The last event of a stream that failed after it had begun."""

    error: ErrorShown


def event(kind: str, data: Any, seq: int | None = None) -> bytes:
    """One event as bytes; `data` is anything that msgspec writes as JSON, `seq` is its id."""
    place = b"" if seq is None else b"id: %d\n" % seq
    return b"%bevent: %b\ndata: %b\n\n" % (place, kind.encode(), msgspec.json.encode(data))


def comment(text: str) -> bytes:
    """A line that clients skip."""
    return f": {text}\n\n".encode()


class EventStream:
    """An answer that sends what `pieces` gives, as an ASGI application.

    The answer begins with the first piece, so that what fails before it has a status of its own;
    a later failure is a last event, ``error``. When the client goes away, does not read for
    `STALLED` seconds, or `closing` is given, `pieces` is cancelled and closed.
    """

    def __init__(
        self,
        pieces: AsyncGenerator[bytes],
        place: tuple[str, str],
        closing: Outcome[None] | None = None,
    ) -> None:
        self._pieces = pieces
        self._place = place
        self._closing = closing
        self._begun = False
        self._last = 0.0
        self._writing = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until there is no more to send, or nobody to send it to."""
        pumping = asyncio.ensure_future(self._pump(scope, receive, send))
        ending: list[asyncio.Task[Any]] = [pumping]
        if self._closing is not None:
            ending.append(asyncio.ensure_future(self._closing.within(None)))
        cutting = [asyncio.ensure_future(self._tick(send)), asyncio.ensure_future(_gone(receive))]
        tasks = [*ending, *cutting]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if self._begun and done.isdisjoint(cutting):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STALLED):
                    await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _pump(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the pieces; before the first of them a failure is an answer of its own."""
        try:
            async with aclosing(self._pieces) as pieces:
                async for piece in pieces:
                    await self._write(send, piece)
        except Exception as error:
            if self._begun:
                problems.note(error, *self._place)
                await self._write(send, event("error", Failure(problems.shown(error))))
            else:
                await problems.answer(error, *self._place)(scope, receive, send)

    async def _tick(self, send: Send) -> None:
        """Say something where nothing was said for a while; ends where the client reads nothing."""
        loop = asyncio.get_running_loop()
        self._last = loop.time()
        while True:
            silent = loop.time() - self._last
            if self._writing.locked():
                if silent >= STALLED:
                    return
            elif silent >= KEEP_ALIVE:
                await self._write(send, comment("keep-alive"))
            await asyncio.sleep(max(KEEP_ALIVE - silent, KEEP_ALIVE / 4))

    async def _write(self, send: Send, piece: bytes) -> None:
        async with self._writing:
            if not self._begun:
                self._begun = True
                await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            self._last = asyncio.get_running_loop().time()


async def _gone(receive: Receive) -> None:
    """Wait until the client goes away."""
    while (await receive())["type"] != "http.disconnect":
        pass
