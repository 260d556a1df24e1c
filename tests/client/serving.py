"""The real server in a process of its own, a network that breaks, and a reader that objects."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from tests.cli.program import HIDDEN
from tests.nursery import Fork

from tertulia import Runtime
from tertulia.client import LiveClient, Reconnect
from tertulia.wire.events import (
    AgentLog,
    LiveEvent,
    ResponseChunk,
    ResponseEnd,
    ResponseStart,
)

APP = Path(__file__).parent / "live_app.py"
EAGER = Reconnect(attempts=2_000, within=50, first=0.005, most=0.2)
"""Comes back at once, and does not give up before the test does."""
NODES = ("output", "agent")


def command(port: int, store: str, app: Path = APP) -> list[str]:
    """What Python is told to serve the application on a port of this machine."""
    return ["-m", "tertulia", "serve", str(app), "--port", str(port), "--store", store]


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Served:
    """The application of `live_app.py`, with a store that outlives its process."""

    def __init__(self, folder: Path, node: str, app: Path = APP, **env: str) -> None:
        self.port = free_port()
        self.store = f"sqlite:///{folder / 'store.db'}"
        self._app = app
        self._log = folder / "server.log"
        kept = {name: value for name, value in os.environ.items() if not name.startswith(HIDDEN)}
        self._env = {**kept, "NODE": node, **env}
        self._process: Fork | None = None

    @property
    def url(self) -> str:
        """Where it is."""
        return f"ws://127.0.0.1:{self.port}/ws"

    def log(self) -> str:
        """What it printed, in all its processes."""
        return self._log.read_text()

    async def start(self) -> None:
        """Start it, and wait until it serves."""
        with self._log.open("ab") as log:
            words = command(self.port, self.store, self._app)
            process = Fork(words, env=self._env, stdout=log, stderr=log)
        self._process = process
        while True:
            assert process.poll() is None, self.log()
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.close()
                return
            await asyncio.sleep(0.02)

    async def stop(self, number: int) -> int:
        """End it by a signal; its exit status."""
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(number)
        status = await asyncio.to_thread(process.wait)
        process.close()
        return status


@asynccontextmanager
async def served(folder: Path, node: str, app: Path = APP, **env: str) -> AsyncGenerator[Served]:
    """A server, until the end of the block."""
    server = Served(folder, node, app, **env)
    try:
        await server.start()
        yield server
    finally:
        await server.stop(signal.SIGKILL)


class Network:
    """Between a client and a server: counts bytes, and cuts connections where it is told to."""

    def __init__(self, port: int) -> None:
        self.cuts = 0
        self.plan: list[tuple[int, int]] = []
        """For each connection to come: after how many bytes up or down it is cut."""
        self._to = port
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    @property
    def url(self) -> str:
        """Where the server is, over this network."""
        return f"ws://127.0.0.1:{self.port}/ws"

    def cut(self) -> None:
        """Break all connections off."""
        for writer in list(self._open):
            writer.transport.abort()

    async def connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of a client."""
        limits = self.plan.pop(0) if self.plan else (1 << 60, 1 << 60)
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._to)
        except OSError:
            writer.transport.abort()
            return
        self._open |= {writer, far_writer}
        ways = ((reader, far_writer, limits[0]), (far_reader, writer, limits[1]))
        tasks = [asyncio.create_task(self._carry(*way)) for way in ways]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for end in (writer, far_writer):
            end.transport.abort()
            self._open.discard(end)
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: int
    ) -> None:
        with suppress(OSError):
            while limit and (data := await reader.read(min(limit, 65_536))):
                writer.write(data)
                await writer.drain()
                limit -= len(data)
            if not limit:
                self.cuts += 1


@asynccontextmanager
async def network(port: int) -> AsyncGenerator[Network]:
    """A network to a port of this machine."""
    made = Network(port)
    server = await asyncio.start_server(made.connect, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        made.cut()
        await asyncio.sleep(0)


class Reader:
    """Reads all events of a client as the protocol says; objects to a gap and to a repetition."""

    def __init__(self, client: LiveClient, *, goes_on: bool = False) -> None:
        self._goes_on = goes_on
        """An answer that has ended may go on later, under the same id."""
        self.answers: dict[str | None, str] = {}
        """The whole answers by their ids, in the order in which they ended."""
        self.notes: list[str] = []
        self.seqs: list[int] = []
        self.events: list[LiveEvent] = []
        self.anew = 0
        """How many answers began anew in other words."""
        self._texts: dict[str | None, str] = {}
        self._news = asyncio.Event()
        self._task = asyncio.create_task(self._read(client))

    async def until(self, reached: Callable[[Reader], bool]) -> None:
        """Wait until something was read."""
        while not reached(self):
            assert not self._task.done(), self._task
            self._news.clear()
            await self._news.wait()

    async def over(self) -> None:
        """Wait until nothing more comes. Raises what the connection ended with."""
        await self._task

    async def stop(self) -> None:
        """Read no more. Raises what was wrong with what was read."""
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    @property
    def text(self) -> str:
        """The text so far of the answer that is being given."""
        return next(reversed(self._texts.values()), "")

    async def _read(self, client: LiveClient) -> None:
        try:
            async for event in client.events():
                self.events.append(event)
                self._take(event)
                self._news.set()
        finally:
            self._news.set()

    def _take(self, event: LiveEvent) -> None:
        if event.seq is not None:
            assert not self.seqs or event.seq > self.seqs[-1], (event, self.seqs[-1])
            self.seqs.append(event.seq)
        if isinstance(event, ResponseStart):
            self.anew += event.request_id in self._texts
            assert self._goes_on or event.request_id not in self.answers, event
            self._texts[event.request_id] = ""
        elif isinstance(event, ResponseChunk):
            assert event.offset == len(self._texts[event.request_id]), event
            self._texts[event.request_id] += event.text
        elif isinstance(event, ResponseEnd):
            self.answers[event.request_id] = self._texts.pop(event.request_id)
        elif isinstance(event, AgentLog):
            self.notes += [str(event.payload["of"])] if event.name == "note" else []


async def said_in(server: Served, session_id: str | None) -> list[tuple[str, str]]:
    """Role and text of every message that is kept of a session."""
    async with Runtime(server.store) as runtime:
        history = await runtime.session(session_id).history()
        return [(message.role, message.text) for message in history]
