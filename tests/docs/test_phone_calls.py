"""The page about phone calls: its app is served, and its caller calls it."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tertulia.wire.carrier import decode_app
from tertulia.wire.events import event_types

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "phone-calls.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def ran(code: str, folder: Path) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def wait_for(port: int, server: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError("the server did not start")


def test_the_caller_of_the_page_talks_with_the_app_of_the_page(tmp_path: Path) -> None:
    app, caller = BLOCKS[0], BLOCKS[1]
    (tmp_path / "app.py").write_text(app)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = ["-m", "tertulia", "serve", "app.py", "--port", str(port), "--store", "memory:"]
    server = subprocess.Popen(
        [sys.executable, *command], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    try:
        wait_for(port, server)
        printed = ran(caller.replace(":8080/", f":{port}/"), tmp_path)
    finally:
        server.terminate()
        _, logged = server.communicate(timeout=30)
    assert len(printed) >= 2, logged
    assert all(printed)


@pytest.mark.parametrize("code", BLOCKS[2:])
def test_every_other_block_of_the_page_runs(code: str, tmp_path: Path) -> None:
    ran(code, tmp_path)


def test_the_page_names_events_and_frames_that_there_are() -> None:
    tables = "\n".join(line for line in PAGE.splitlines() if line.startswith("|"))
    named = set(re.findall(r"`((?:agent|system)\.[a-z_.]+)`", tables))
    assert len(named) > 10
    assert named <= event_types().keys()
    for frame in ("text", "play", "sendDigits", "language", "end"):
        assert f"`{frame}`" in tables
    assert decode_app('{"type": "end"}') is not None
