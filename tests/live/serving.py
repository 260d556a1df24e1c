"""An app on a real server in this process, and clients that speak its raw protocol."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import uvicorn
from tests.live.talking import eventually
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tertulia.live import AgentSession
from tertulia.server import AgentApp
from tertulia.wire.events import AgentReady, LiveEvent
from tertulia.wire.frames import decode

E = TypeVar("E", bound=LiveEvent)


class _Server(uvicorn.Server):
    """One that leaves the signals of the tests alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


class Served:
    """An app that is served."""

    def __init__(self, app: AgentApp, port: int) -> None:
        self.app = app
        self.port = port

    @asynccontextmanager
    async def connected(self, query: str = "", **options: Any) -> AsyncGenerator[Wire]:
        """A connection, without a word."""
        url = f"ws://127.0.0.1:{self.port}/ws{query}"
        async with connect(url, proxy=None, max_size=None, **options) as connection:
            yield Wire(connection)

    def session(self, session_id: str) -> AgentSession:
        """The live session with an id."""
        found = self.app.hub.find(session_id)
        assert found is not None
        return found

    async def left(self, session_id: str) -> None:
        """Wait until the server knows that the client of a session is gone."""
        session = self.session(session_id)
        await eventually(lambda: session.presence.link is None)


class Wire:
    """The client's end of one connection; `got` is what came on it."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.got: list[LiveEvent] = []

    async def send(self, kind: str, **fields: Any) -> None:
        """Send an event."""
        await self.connection.send(json.dumps({"type": kind, **fields}))

    async def next(self) -> LiveEvent:
        """The next event. Raises ConnectionClosed."""
        event = decode(await self.connection.recv(), 10_000_000)
        self.got.append(event)
        return event

    async def until(self, kind: type[E], count: int = 1) -> E:
        """The event that is the so-manieth of its class, once it is there."""
        while len(self.of(kind)) < count:
            await self.next()
        return self.of(kind)[count - 1]

    def of(self, kind: type[E]) -> list[E]:
        """What came of a class."""
        return [event for event in self.got if isinstance(event, kind)]

    async def init(self, session_id: str | None = None, **fields: Any) -> AgentReady:
        """Open a session."""
        await self.send("system.init", session_id=session_id, **fields)
        return await self.until(AgentReady)

    async def says(self, content: str, **fields: Any) -> None:
        """Say something, and ask for an answer."""
        await self.send("agent.transcript.update", role="user", content=content, **fields)
        await self.send("system.llm.request")

    def abort(self) -> None:
        """The network is gone, without a word of goodbye."""
        self.connection.transport.abort()

    async def closed(self) -> tuple[int, str]:
        """Take all that comes until the close: its code and reason."""
        with contextlib.suppress(ConnectionClosed):
            while True:
                await self.next()
        return self.connection.close_code or 0, self.connection.close_reason or ""


@asynccontextmanager
async def serving(app: AgentApp, listener: socket.socket | None = None) -> AsyncGenerator[Served]:
    """Serve an app on loopback, with its own protocol, to the end of the block."""
    listener = listener or socket.create_server(("127.0.0.1", 0))
    app.bind("127.0.0.1")
    options: dict[str, Any] = {**app._uvicorn(), "log_config": None}  # pyright: ignore[reportPrivateUsage]
    server = _Server(uvicorn.Config(app, **options))  # pyright: ignore[reportArgumentType]
    task = asyncio.create_task(server.serve(sockets=[listener]))
    await eventually(lambda: server.started or task.done())
    try:
        yield Served(app, listener.getsockname()[1])
    finally:
        server.should_exit = True
        await task
