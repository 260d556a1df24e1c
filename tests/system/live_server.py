"""A live server in a process of its own, which can be killed and started again on the same file."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

PROGRAM = Path(__file__).parent / "live_app.py"
PATIENCE = 30.0  # seconds for a start or an end, on a machine with much else to do


class LiveServer:
    """`live_app.py` on a port of loopback, with one database."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._folder = folder
        self._environment = {**os.environ, **environment}
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start it, and wait until it listens."""
        with (self._folder / "server.txt").open("ab") as said:
            self._process = subprocess.Popen(
                [sys.executable, str(PROGRAM), str(self.port), str(self._folder / "live.db")],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                env=self._environment,
            )
        deadline = time.monotonic() + PATIENCE
        while not self._listens():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the server did not start:\n{self.said()}")
            time.sleep(0.02)

    def kill(self) -> None:
        """End it as a power cut does."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Let it read nothing more, with its connections open."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def terminate(self) -> None:
        """Ask it to end, and wait until it has."""
        self._end(signal.SIGTERM)

    def said(self) -> str:
        """What it wrote to its outputs."""
        return (self._folder / "server.txt").read_text(errors="replace")

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(PATIENCE)
            self._process = None

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


def free_port() -> int:
    """A port that nobody uses, and that keeps over restarts of the server."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
