"""Ours in the live benchmarks: the graph of a session alone, and the server.

The graph is measured without its frames: a session takes events as from a client, and in place of
the connection there is a function that counts.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from benchmarks.live_chains import TEXT, Arrived, Chain
from benchmarks.live_settings import PAUSE, WORD, here
from tertulia import Runtime
from tertulia.live.nodes import Node
from tertulia.live.output import OutputNode
from tertulia.live.session import AgentSession, Settings
from tertulia.server.app import AgentApp
from tertulia.wire.events import LiveEvent


class Echo(LiveEvent, type="bench.echo"):
    """The event of these benchmarks; it is not kept."""

    text: str
    number: int = 0


class Graph(Chain):
    """The inlet of a session, A, B, and its sink."""

    distributions = ("tertulia", "msgspec")

    async def open(self, arrived: Arrived) -> None:
        self.runtime = await Runtime("memory:").__aenter__()
        conversation = self.runtime.session("chain")
        self.session = session = AgentSession(conversation, settings=Settings(echo=True))
        first, second = Node("A"), Node("B")
        session.add_node(first)
        session.add_node(second)
        session.add_edge(first, second)
        session.client_gets = lambda _: arrived()
        await session.start()

    def event(self) -> Any:
        return Echo(text=TEXT)

    async def put(self, event: Any) -> None:
        await self.session.receive(event)

    async def close(self) -> None:
        await self.session.stop()
        await self.runtime.close()


class Echoing(Node):
    """Sends back what comes, as an event of its own."""

    async def process_event(self, event: LiveEvent) -> None:
        if isinstance(event, Echo):
            await self.send_event(Echo(text=event.text, number=event.number))


class Speaking(OutputNode):
    """Answers without an end."""

    async def generate_response(self) -> AsyncIterator[str]:
        for _ in itertools.count():
            await asyncio.sleep(PAUSE)
            yield WORD


def echo(port: int, folder: Path) -> None:
    """Serve sessions whose one node sends back what comes."""
    _serve(port, folder, lambda: Echoing("echo"))


def brief(port: int, folder: Path) -> None:
    """The same, and who is lost is not waited for long."""
    _serve(port, folder, lambda: Echoing("echo"), resume_for=1.0)


def speak(port: int, folder: Path) -> None:
    """Serve sessions whose one node answers until it is interrupted."""
    _serve(port, folder, lambda: Speaking("speaking"))


def _serve(port: int, folder: Path, node: Callable[[], Node], **settings: Any) -> None:
    async def setup(session: AgentSession) -> None:
        here()
        session.add_node(node())
        await session.start()
        await session.wait_until_complete()

    app = AgentApp(setup, store=f"sqlite:///{folder / 'live.db'}", **settings)
    app.run(port=port, log_level="warning")
