"""smallestai: the graph of its crew alone, and its server with a crew of one node.

The graph is measured without its encoding at the end: its session is given a function that counts
in place of the one that writes to the WebSocket.
"""

# pyright: basic, reportMissingImports=false
from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

os.environ.setdefault("SMALLESTAI_LOG_LEVEL", "WARNING")

from smallestai.atoms.crew import AtomsCrewApp, CrewSession, OutputCrewNode
from smallestai.atoms.crew.events import SDKEvent
from smallestai.atoms.crew.nodes import CrewNode
from smallestai.atoms.crew.server import configure_crew_logging
from smallestai.atoms.crew.task_manager import TaskManagerParams

from benchmarks.live_chains import TEXT, Arrived, Chain
from benchmarks.live_settings import PAUSE, UVICORN, WORD, here


class Echo(SDKEvent, type="bench.echo"):
    """The event of these benchmarks."""

    text: str
    number: int = 0


class Passing(CrewNode):
    """Hands on what it gets."""

    async def process_event(self, event: SDKEvent) -> None:
        await self.send_event(event)


class Speaking(OutputCrewNode):
    """Answers without an end."""

    async def generate_response(self) -> AsyncIterator[str]:
        for _ in itertools.count():
            await asyncio.sleep(PAUSE)
            yield WORD


class Crew(Chain):
    """root, A, B, sink."""

    distributions = ("smallestai",)

    async def open(self, arrived: Arrived) -> None:
        configure_crew_logging()
        self.session = session = CrewSession(None, "chain", _nothing)
        session.task_manager.setup(TaskManagerParams(loop=asyncio.get_running_loop()))
        first, second = Passing("A"), Passing("B")
        session.add_node(first)
        session.add_node(second)
        session.add_edge(first, second)

        async def count(_: SDKEvent) -> None:
            arrived()

        session.send_to_websocket = count
        session._build_graph()
        await session._start_nodes(None, session.task_manager)

    def event(self) -> Any:
        return Echo(text=TEXT)

    async def put(self, event: Any) -> None:
        await self.session.root.queue_event(event)

    async def close(self) -> None:
        await self.session.stop()


async def _nothing(_: CrewSession) -> None:
    """No nodes of its own."""


def echo(port: int, folder: Path) -> None:
    """Serve sessions whose one node hands back what comes."""
    _serve(port, Passing)


def speak(port: int, folder: Path) -> None:
    """Serve sessions whose one node answers until it is interrupted."""
    _serve(port, lambda: Speaking("speaking"))


def _serve(port: int, node: Any) -> None:
    async def setup(session: CrewSession) -> None:
        here()
        session.add_node(node())
        await session.start()
        await session.wait_until_complete()

    AtomsCrewApp(setup).run(port=port, **UVICORN)
