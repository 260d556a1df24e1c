"""Serves an app of the documents, as `tertulia serve` does for their readers."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

ADDRESS = "127.0.0.1:8080"
"""Where the documents say that an app is."""


@contextmanager
def served(app: str, folder: Path) -> Generator[str]:
    """Serve the text of an app.py on a free port; gives its address. It may log no error."""
    (folder / "app.py").write_text(app)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = ["-m", "tertulia", "serve", "app.py", "--port", str(port), "--store", "memory:"]
    log = folder / "server.log"
    with log.open("w") as stderr:
        server = subprocess.Popen([sys.executable, *command], cwd=folder, stderr=stderr)
        try:
            _wait_for(port, server, log)
            yield f"127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(60)
    assert "Traceback" not in log.read_text(), log.read_text()


def _wait_for(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(f"the server did not start\n{log.read_text()}")
