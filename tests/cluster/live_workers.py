"""Workers of one database in this process, each a real server, and the answers they give."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from tests.client.serving import Network
from tests.live.serving import Served, serving

from tertulia import Agent, AgentApp, Runtime
from tertulia.agents.protocol import Finished, ModelEvent, ModelRequest, TextDelta
from tertulia.live import AgentNode, AgentSession, Node


class Stepping:
    """A model that says ``a b c`` as "a ", "b ", "c "; before a word like ``|go`` it waits until
    somebody lets that one go."""

    name = "stepping"

    def __init__(self) -> None:
        self._gates: dict[str, asyncio.Event] = {}
        self.waits = asyncio.Event()
        """Set when it waits somewhere."""

    def let(self, name: str) -> None:
        """Let a word go."""
        self._gate(name).set()

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """The words of the last question."""
        asked = [message for message in request.messages if message.role == "user"][-1]
        for word in asked.text.split():
            if word.startswith("|"):
                self.waits.set()
                await self._gate(word[1:]).wait()
            yield TextDelta(f"{word} ")
        yield Finished("stop")

    def _gate(self, name: str) -> asyncio.Event:
        return self._gates.setdefault(name, asyncio.Event())


class Working(Served):
    """A worker that is served, and its model."""

    def __init__(self, app: AgentApp, port: int, model: Stepping) -> None:
        super().__init__(app, port)
        self.model = model

    @property
    def lives(self) -> list[str]:
        """The ids of the live sessions that are here."""
        return sorted(self.app.hub._sessions)  # pyright: ignore[reportPrivateUsage]


@asynccontextmanager
async def working(
    store: str, bus: str | None = None, *, node: Callable[[], Node] | None = None, **options: Any
) -> AsyncGenerator[Working]:
    """A worker on a database, whose agent answers with its `Stepping` model; else a `node` does."""
    model = Stepping()
    agent = Agent(name="stepping", model=model)

    async def setup(session: AgentSession) -> None:
        session.add_node(AgentNode(agent) if node is None else node())
        await session.start()
        await session.wait_until_complete()

    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    async with Runtime(store, bus=bus) as runtime:
        app = AgentApp(
            setup, runtime=runtime, advertise=f"http://127.0.0.1:{port}", finish_in=0.0, **options
        )
        async with serving(app, listener):
            yield Working(app, port, model)


def lapse(worker: Working, lapsed: bool = True) -> None:
    """The lease of a worker runs out, as its store tells it; or it comes back."""
    cluster = worker.app.runtime.cluster
    assert cluster is not None
    cluster._lapses.note(lapsed)  # pyright: ignore[reportPrivateUsage]


class Balancer(Network):
    """Gives each new connection to one worker, until it is told of another."""

    def turn_to(self, port: int) -> None:
        """Give new connections to this one; those that are open are cut."""
        self._to = port
        self.cut()


@asynccontextmanager
async def balanced(port: int) -> AsyncGenerator[Balancer]:
    """A balancer that begins with one worker."""
    made = Balancer(port)
    server = await asyncio.start_server(made.connect, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        made.cut()
        await asyncio.sleep(0)
