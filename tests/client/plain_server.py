"""A server of the plain protocol, which knows no positions and no coming back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

Handler = Callable[["Guest"], Awaitable[None]]


class Guest:
    """One client, as the server sees it."""

    def __init__(self, socket: ServerConnection) -> None:
        self.socket = socket

    async def hear(self) -> dict[str, Any]:
        """The next frame; it must be binary."""
        data = await self.socket.recv()
        assert isinstance(data, bytes)
        return json.loads(data)

    async def hear_request(self) -> None:
        """Skip to the next request for an answer."""
        while (await self.hear())["type"] != "system.llm.request":
            pass

    async def tell(self, kind: str, **fields: Any) -> None:
        """Send a frame, binary as that server does."""
        await self.socket.send(json.dumps({"type": kind, "timestamp": "t", **fields}).encode())


@asynccontextmanager
async def serving(handler: Handler) -> AsyncGenerator[str]:
    """Serve each client with a handler; gives the URL."""

    async def handle(socket: ServerConnection) -> None:
        try:
            await handler(Guest(socket))
        except ConnectionClosed:
            await asyncio.sleep(0)  # the client went away

    async with serve(handle, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        yield f"ws://127.0.0.1:{port}/ws"


async def answer_all(guest: Guest) -> None:
    """The chat sequence: ready, then an echo of everything, and an answer to each request."""
    init = await guest.hear()
    assert init["type"] == "system.init"
    assert init["session_context"]["conversation_type"] == "chat"
    await guest.tell("agent.ready")
    said = ""
    while True:
        event = await guest.hear()
        if event["type"] == "agent.transcript.update":
            said = event["content"]
        if event["type"] == "system.llm.request":
            await guest.tell("agent.llm.response.start", request_id=None)
            for word in ("you ", "said ", said):
                await guest.tell("agent.llm.response.chunk", text=word)
            await guest.tell("agent.llm.response.end")
        await guest.tell(event.pop("type"), **{**event, "id": None})
