"""Workers of one database, each a real server in a process of its own, and clients that insist."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.cluster.checker import Acknowledged
from tests.nursery import Fork

from tertulia.testing.servers.processes import free_port

PROGRAM = Path(__file__).parent / "programs" / "serves.py"
ROOT = Path(__file__).parent.parent.parent
PATIENCE = 40.0
"""Seconds after which a test has failed, and is not only slow."""
HIDDEN = ("TERTULIA_STORE", "TERTULIA_BUS", "TERTULIA_TOKEN", "TERTULIA_AUTH")


def leased(address: str, seconds: float = 2) -> str:
    """The address of a database with another lease than the default."""
    return f"{address}{'&' if '?' in address else '?'}lease={seconds}"


class Answered(NamedTuple):
    """What a server said: its status and its JSON."""

    status: int
    data: Any


class Worker:
    """A server in a process of its own, with `agent` clerk and `swarm` shop of `serves.py`.

    `store` and `bus` are addresses. Its clock is `skew` seconds ahead. `within` is put before its
    command, to run it elsewhere; `host` is where it listens and is asked.
    """

    def __init__(
        self,
        store: str,
        *,
        bus: str | None = None,
        skew: float = 0.0,
        host: str = "127.0.0.1",
        within: Sequence[str] = (),
    ) -> None:
        self.host, self.port = host, free_port()
        settings = {"store": store, "bus": bus, "skew": skew, "host": host, "port": self.port}
        self._within = within
        self._words = [str(PROGRAM), json.dumps(settings)]
        self._process: Fork | subprocess.Popen[bytes]
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 it is open for as long as the process
        self.start()

    def start(self) -> None:
        """Run it, where it was before."""
        kept = {name: value for name, value in os.environ.items() if name not in HIDDEN}
        if not self._within:
            self._process = Fork(self._words, stdout=self._log, stderr=self._log, env=kept)
            return
        self._process = subprocess.Popen(
            [*self._within, sys.executable, *self._words],
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
            env={**kept, "PYTHONPATH": os.pathsep.join((str(ROOT), *sys.path))},
        )

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://{self.host}:{self.port}"

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def log(self) -> str:
        """What it wrote so far."""
        end = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), end, 0).decode(errors="replace")

    async def ready(self) -> None:
        """Wait until it serves. Raises AssertionError with its log where it ended instead."""
        until = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(OSError, EOFError):
                if (await self.ask("GET", "/health")).status == 200:
                    return
            if self._process.poll() is not None or time.monotonic() > until:
                raise AssertionError(f"a worker did not start: {self.log}")
            await asyncio.sleep(0.02)

    async def says(self, text: str) -> None:
        """Wait until it has written something."""
        async with asyncio.timeout(PATIENCE):
            while text not in self.log:
                await asyncio.sleep(0.02)

    async def ask(self, method: str, path: str, body: Any = None) -> Answered:
        """The answer to a request. Raises OSError and EOFError where there is none."""
        reader, writer = await asyncio.open_connection(self.host, self.port)
        try:
            content = b"" if body is None else json.dumps(body).encode()
            writer.write(
                f"{method} {path} HTTP/1.1\r\nhost: {self.host}\r\nconnection: close\r\n"
                f"content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n".encode()
                + content
            )
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            size = head.partition("\r\ncontent-length:")[2].partition("\r\n")[0]
            return Answered(int(head.split()[1]), json.loads(await reader.readexactly(int(size))))
        finally:
            writer.transport.abort()

    async def post(self, path: str, body: Any = None) -> Any:
        """The JSON of an answer that has to be good."""
        answered = await self.ask("POST", path, {} if body is None else body)
        assert answered.status in (200, 201), answered
        return answered.data

    # -- what is done to it

    def kill(self) -> None:
        """``kill -9``; it is gone when this returns."""
        self._process.kill()
        self._end()

    def pause(self) -> None:
        """SIGSTOP; it stands still when this returns."""
        self._process.send_signal(signal.SIGSTOP)
        if isinstance(self._process, Fork):
            self._process.wait_stopped()
        else:
            os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOWAIT)

    def go_on(self) -> None:
        """SIGCONT."""
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> int:
        """SIGTERM; its status when it has ended."""
        self._process.terminate()
        return self._end()

    def clean_up(self) -> None:
        """Leave no process and no file behind."""
        self.kill()
        self._log.close()

    def _end(self) -> int:
        status = self._process.wait(PATIENCE)
        if isinstance(self._process, Fork):
            self._process.close()
        elif self._process.stdin is not None:
            self._process.stdin.close()
        return status


@contextmanager
def started(*workers: Worker) -> Generator[list[Worker]]:
    """Workers that end with the block."""
    try:
        yield list(workers)
    except BaseException:
        for worker in workers:
            print(f"-- worker {worker.pid} at {worker.url} said:\n{worker.log[-4000:]}")
        raise
    finally:
        for worker in workers:
            worker.clean_up()


async def all_ready(workers: Sequence[Worker]) -> None:
    """Wait until all of them serve."""
    await asyncio.gather(*(worker.ready() for worker in workers))


class Client:
    """Somebody who says something again, with the same key and to the next worker, until it is
    answered; what was answered is in `acknowledged`."""

    def __init__(self, workers: Sequence[Worker]) -> None:
        self.workers = workers
        self.acknowledged: list[Acknowledged] = []
        self.repeated = 0
        """How often something had to be said again."""

    async def create(self, session: str) -> None:
        """Make a session."""
        await self._insist(session, "/v1/sessions", {"id": session}, good=(201, 409))

    async def say(
        self, session: str, text: str, key: str | None = None, first: int | None = None
    ) -> Any:
        """Say something in a session; what the answer was. `first` is the worker asked first."""
        key = key or f"{session}: {text}"
        body = {"input": text, "idempotency_key": key}
        path = f"/v1/sessions/{session}/run"
        data = await self._insist(key, path, body, good=(200,), first=first)
        self.acknowledged += [
            Acknowledged(
                session=session,
                key=key,
                turn=data["turn"],
                seq=each["seq"],
                text=each["content"] if each["role"] == "user" else None,
            )
            for each in data["messages"]
        ]
        return data

    async def _insist(
        self, of: str, path: str, body: Any, *, good: tuple[int, ...], first: int | None = None
    ) -> Any:
        turn = hash(of) if first is None else first
        async with asyncio.timeout(PATIENCE):
            while True:
                worker = self.workers[turn % len(self.workers)]
                turn += 1
                try:
                    answered = await worker.ask("POST", path, body)
                except (OSError, EOFError):
                    answered = Answered(503, None)
                if answered.status in good:
                    return answered.data
                assert answered.status >= 500 or _cut_off(answered), answered
                self.repeated += 1
                await asyncio.sleep(0.05)


def _cut_off(answered: Answered) -> bool:
    """Whether a turn ended because its worker lost the database: another one may have it."""
    return answered.data["error"]["type"] in ("StaleWriter", "TurnInterrupted")
