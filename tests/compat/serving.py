"""A server of a setup handler on a free port, and plain clients of its WebSocket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncGenerator, Generator
from typing import Any, cast

import uvicorn
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tertulia.compat.atoms.server import AtomsCrewApp

PATIENCE = 10.0
Frame = dict[str, Any]
CHAT = {"initial_variables": {"a": 1}, "conversation_type": "chat"}


class _Server(uvicorn.Server):
    """One that leaves the signals of the tests alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


class Client:
    """One connection. It sends binary frames, as the SDK's client does."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self.kinds: set[type] = set()
        """What kind of frames came."""

    async def send(self, kind: str, **fields: Any) -> None:
        """Send an event."""
        await self.raw(json.dumps({"type": kind, **fields}).encode())

    async def raw(self, frame: bytes | str) -> None:
        """Send a frame as it is."""
        await self._socket.send(frame)

    async def next(self) -> Frame:
        """The next event."""
        async with asyncio.timeout(PATIENCE):
            data = await self._socket.recv()
        self.kinds.add(type(data))
        return cast("Frame", json.loads(data))

    async def until(self, *kinds: str) -> list[Frame]:
        """The events up to one of some type, with it."""
        told = [await self.next()]
        while told[-1]["type"] not in kinds:
            told.append(await self.next())
        return told

    async def begin(self, **fields: Any) -> Frame:
        """Send the first frame; what it is answered with."""
        await self.send("system.init", version="1.0.0", session_context=CHAT, **fields)
        return await self.next()

    async def ask(self, text: str) -> str:
        """The text of the answer to what the user says."""
        await self.send("agent.transcript.update", role="user", content=text)
        await self.send("system.llm.request")
        told = await self.until("agent.llm.response.end")
        return "".join(each["text"] for each in told if each["type"].endswith(".chunk"))

    async def closed(self) -> int:
        """The code with which the server closes the connection."""
        async with asyncio.timeout(PATIENCE):
            try:
                while True:
                    await self._socket.recv()
            except ConnectionClosed:
                return self._socket.close_code or 0

    async def leave(self, code: int = 1000) -> None:
        """Close the connection."""
        await self._socket.close(code)

    def break_off(self) -> None:
        """Lose the connection, without a word."""
        self._socket.transport.abort()


class Served:
    """A server."""

    def __init__(self, app: AtomsCrewApp, port: int) -> None:
        self.app = app
        self.port = port
        self.url = f"ws://127.0.0.1:{port}/ws"

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncGenerator[Client]:
        """A client that has said nothing yet."""
        async with connect(self.url) as socket:
            yield Client(socket)

    @contextlib.asynccontextmanager
    async def client(self, **fields: Any) -> AsyncGenerator[Client]:
        """A client that was told to begin."""
        async with self.connection() as made:
            assert (await made.begin(**fields))["type"] == "agent.ready"
            yield made


@contextlib.asynccontextmanager
async def served(app: AtomsCrewApp) -> AsyncGenerator[Served]:
    """A server, as `run` would have it but for the signals."""
    options: dict[str, Any] = app._uvicorn()  # pyright: ignore[reportPrivateUsage]
    options["log_config"] = None
    server = _Server(uvicorn.Config(cast("Any", app), **options))
    listener = socket.create_server(("127.0.0.1", 0))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        while not server.started:
            assert not task.done(), "the server did not start"
            await asyncio.sleep(0)
        yield Served(app, listener.getsockname()[1])
    finally:
        server.should_exit = True
        await task
        listener.close()
