"""What the tests of NATS share."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from tertulia.bus.nats import NatsBus
from tertulia.bus.nats_connection import NatsConnection
from tertulia.testing.servers import NatsServer
from tertulia.testing.servers.processes import Process, wait_until


class ConfiguredServer(NatsServer):
    """A NATS server with a configuration of its own."""

    def __init__(self, config: Path) -> None:
        self._config = config
        super().__init__()

    def start(self) -> None:
        command = [self._program, "--addr", "127.0.0.1", "--port", str(self.port)]
        command += ["--config", str(self._config)]
        self._process = Process(self._folder, command, unprivileged=False)
        wait_until(self._is_ready, self._process, self._folder.path / "log")


def named(url: str) -> str:
    """An address that no other test uses."""
    return f"{url}?name={uuid.uuid4().hex}"


async def eventually(holds: Callable[[], object]) -> None:
    """Wait until something holds; the test's own timeout ends it where it never does."""
    while not holds():
        await asyncio.sleep(0.002)


@asynccontextmanager
async def connection(url: str) -> AsyncGenerator[NatsConnection]:
    """A connection that is there."""
    opened = NatsConnection(url)
    opened.start()
    try:
        assert await opened.ready(10)
        yield opened
    finally:
        await opened.close()


@asynccontextmanager
async def buses(url: str, count: int = 2) -> AsyncGenerator[list[NatsBus]]:
    """Some buses that know each other."""
    opened = [NatsBus(NatsConnection(url)) for _ in range(count)]
    try:
        for bus in opened:
            bus.wants("nobody", "session.execute")
        await eventually(lambda: all(bus.peers == count - 1 for bus in opened))
        yield opened
    finally:
        for bus in opened:
            await bus.aclose()


def ignore(subject: str, data: bytes, reply: str) -> None:
    """Hear a message and do nothing."""


def nats_threads() -> list[threading.Thread]:
    """The threads of connections."""
    return [each for each in threading.enumerate() if each.name == "tertulia-nats"]
