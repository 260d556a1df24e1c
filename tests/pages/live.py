"""What the blocks of the pages on live sessions take for granted, and what has to come of them."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.compat.serving import Served, served
from tests.pages.running import Names, block

from tertulia.compat.atoms import AtomsApp, BackgroundCrewNode, CrewSession, OutputCrewNode
from tertulia.compat.atoms.events import SDKEvent

PATIENCE = 20.0
LAUNCHER = """
import asyncio, sys
from tertulia.compat.atoms import BackgroundCrewNode, OutputCrewNode
from tertulia.server import AgentApp

AgentApp.run.__defaults__ = ("127.0.0.1", int(sys.argv[1]))


class SalesAgent(OutputCrewNode):
    def __init__(self):
        super().__init__("sales")

    async def generate_response(self):
        yield "Buy "
        await asyncio.Event().wait()


class StatsTracker(BackgroundCrewNode):
    pass


exec(compile(open(sys.argv[2]).read(), sys.argv[2], "exec"))
"""


class Seller(OutputCrewNode):
    """The page's ``agent``: answers with what it was told last."""

    def __init__(self) -> None:
        super().__init__("agent")

    async def generate_response(self) -> AsyncIterator[str]:
        yield "Sold: "
        yield self.context.messages[-1]["content"]


class Logger(BackgroundCrewNode):
    """The page's ``logger``."""

    def __init__(self) -> None:
        super().__init__("logger")
        self.seen: list[str] = []

    async def process_event(self, event: SDKEvent) -> None:
        self.seen.append(event.type)


class Metrics:
    """The page's ``metrics``."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def increment(self, name: str) -> None:
        self.counts[name] += 1


async def events_go_from_the_logger_to_the_agent(names: Names) -> None:
    """Serve the block's ``on_start``, which returns as soon as the session has started."""
    async with served(AtomsApp(names["on_start"])) as server, server.client() as client:
        assert await client.ask("a hat") == "Sold: a hat"
        session = server.app.hub.graph
        assert [node["name"] for node in session["nodes"]] == ["agent", "logger"]
        assert session["edges"] == [[1, 0]], "the logger comes before the agent"
        assert names["logger"].seen == ["agent.transcript.update", "system.llm.request"]


async def hooks_see_both_directions(
    hooks: Callable[..., Awaitable[Names]], printed: pytest.CaptureFixture[str]
) -> None:
    """Serve a session with the block's hooks."""
    metrics = Metrics()

    async def setup(session: CrewSession) -> None:
        session.add_node(Seller())
        await hooks(session=session, metrics=metrics)
        await session.start()
        await session.speak("Good morning.")
        await session.speak("How are you?")
        await session.wait_until_complete()

    async with served(AtomsApp(setup)) as server:
        async with server.connection() as client:
            ready = await client.begin()
            await client.send("system.user.joined")
            await client.until("system.user.joined")
        await gone(server)
    assert f"User {ready['session_id']} connected!\n" in printed.readouterr().out
    assert metrics.counts == {"agent_speech_count": 2}


async def gone(server: Served) -> None:
    """Wait until a server has no session left."""
    async with asyncio.timeout(PATIENCE):
        while server.app.hub.held:
            await asyncio.sleep(0.01)


@asynccontextmanager
async def as_a_script(name: str, folder: Path) -> AsyncGenerator[tuple[Served, Any]]:
    """Run a block as ``python app.py``; its port is one that is free."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    launcher, page = folder / "launcher.py", folder / "page.py"
    launcher.write_text(LAUNCHER)
    page.write_text(block(name))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-u", launcher, str(port), page),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(PATIENCE):
            await _listening(port, process)
        app: Any = None
        yield Served(app, port), process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def the_script_serves_and_says_when_it_is_interrupted(name: str, folder: Path) -> None:
    """Talk with the block that is a whole program, interrupt it, and leave."""
    async with as_a_script(name, folder) as (server, process), server.client() as client:
        await client.send("agent.transcript.update", role="user", content="A hat?")
        await client.send("system.llm.request")
        assert (await client.until("agent.llm.response.chunk"))[-1]["text"] == "Buy "
        await client.send("system.control.interrupt")
        [end, *_] = await client.until("system.control.interrupt")
        assert (end["type"], end["interrupted"]) == ("agent.llm.response.end", True)
        async with asyncio.timeout(PATIENCE):
            assert await process.stdout.readline() == b"User interrupted the agent!\n"
        process.terminate()
        assert await client.closed() == 1012
        async with asyncio.timeout(PATIENCE):
            await process.wait()


async def _listening(port: int, process: asyncio.subprocess.Process) -> None:
    while True:
        assert process.returncode is None, "the program ended"
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
            continue
        writer.close()
        return
