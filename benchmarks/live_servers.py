"""The servers that the live benchmarks load, each started in a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

from benchmarks.live_settings import HOST, resident
from benchmarks.systems import Measured, distribution_versions

Doing = Literal["echo", "speak", "brief"]
START_LIMIT = 30.0
LINE_LIMIT = 90.0
STACK = ("uvicorn", "websockets", "uvloop")


class Served(Measured):
    """A server, by the functions that run it."""

    does: ClassVar[Mapping[Doing, str]]
    session_class = ""
    distributions: tuple[str, ...] = ()

    def versions(self) -> dict[str, str]:
        return distribution_versions(*self.distributions)

    async def start(self, doing: Doing, folder: Path) -> Server:
        """A new process of it that answers."""
        port = free_port()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "benchmarks.live_child"),
            *(self.does[doing], str(port), str(folder)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        server = Server(process, port, self.session_class)
        await server.wait_until_it_answers()
        return server


class Tertulia(Served):
    """Ours, as `run` serves it, on a file of SQLite."""

    does: ClassVar[Mapping[Doing, str]] = {
        "echo": "benchmarks.live_ours:echo",
        "brief": "benchmarks.live_ours:brief",
        "speak": "benchmarks.live_ours:speak",
    }
    session_class = "AgentSession"
    distributions = ("tertulia", "msgspec", "starlette", *STACK)


class Starlette(Served):
    """The bare echo."""

    does: ClassVar[Mapping[Doing, str]] = {"echo": "benchmarks.live_bare:starlette"}
    distributions = ("starlette", *STACK)


class Picows(Served):
    """The quickest echo, to see that the client is quicker than what is measured with it."""

    does: ClassVar[Mapping[Doing, str]] = {"echo": "benchmarks.live_bare:quickest"}
    distributions = ("picows", "uvloop")


class SmallestCrew(Served):
    """The peer's server, on the same loop and protocols as the others."""

    does: ClassVar[Mapping[Doing, str]] = {
        "echo": "benchmarks.peers.smallest_crew:echo",
        "speak": "benchmarks.peers.smallest_crew:speak",
    }
    session_class = "CrewSession"
    distributions = ("smallestai", "fastapi", *STACK)


class Server:
    """One running server."""

    def __init__(self, process: asyncio.subprocess.Process, port: int, session_class: str) -> None:
        self.process, self.port, self.session_class = process, port, session_class

    async def wait_until_it_answers(self) -> None:
        """Raises RuntimeError when it ends instead, TimeoutError when it takes too long."""
        async with asyncio.timeout(START_LIMIT):
            while True:
                if self.process.returncode is not None:
                    raise RuntimeError(f"the server ended: {self.process.returncode}")
                try:
                    _, writer = await asyncio.open_connection(HOST, self.port)
                except OSError:
                    await asyncio.sleep(0.05)
                else:
                    writer.close()
                    return

    async def holds(self) -> dict[str, int]:
        """What it has: tasks, descriptors, threads, sessions, memory; garbage taken away."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{self.session_class}\n".encode())
        line = await asyncio.wait_for(self.process.stdout.readline(), LINE_LIMIT)
        return json.loads(line)

    def resident(self) -> int:
        """Its memory in RAM now, in bytes."""
        return resident(self.process.pid)

    def cpu(self) -> float:
        """The seconds of processor it has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    async def stop(self) -> None:
        """End it at once."""
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


def free_port() -> int:
    """A port that nobody has now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
