"""Serves an app of the documents, as `tertulia serve` does for their readers."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.nursery import Fork

ADDRESS = "127.0.0.1:8080"
"""Where the documents say that an app is."""
_SERVES = re.compile(r"running on http://(127\.0\.0\.1:\d+) ")


@contextmanager
def served(app: str, folder: Path, settings: Mapping[str, str] | None = None) -> Generator[str]:
    """Serve the text of an app.py on a free port; gives its address. It may log no error.

    `settings` are variables of its environment; without them its store is in memory.
    """
    (folder / "app.py").write_text(app)
    environment = {**os.environ, **(settings or {"TERTULIA_STORE": "memory:"})}
    command = ["-m", "tertulia", "serve", "app.py", "--port", "0"]
    log = folder / "server.log"
    with log.open("wb") as said:
        server = Fork(command, stdout=said, stderr=said, cwd=folder, env=environment, reader=True)
        try:
            yield _address(server, log)
        finally:
            server.terminate()
            server.wait(60)
            server.close()
    assert "Traceback" not in log.read_text(), log.read_text()


def _address(server: Fork, log: Path) -> str:
    """Where the server says that it is, once it serves."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:
        said = _SERVES.search(log.read_text())
        if said is not None:
            return said[1]
        time.sleep(0.05)
    raise AssertionError(f"the server did not start\n{log.read_text()}")
