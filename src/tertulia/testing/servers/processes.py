"""Servers as child processes, in a fresh folder that goes away with whoever made it."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tertulia.errors import ConfigurationError

UNPRIVILEGED = "nobody"
"""Who runs a server that refuses to be run by root."""
PATIENCE = 30.0


class Folder:
    """A fresh temporary folder with the data of servers, and their process ids.

    A process beside it ends the servers and removes the folder when this process is gone,
    however it went.
    """

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="tertulia-servers-"))
        self.path.chmod(0o755)
        (self.path / "pids").mkdir()
        self.processes: list[Process] = []
        guard = Path(__file__).with_name("guard.py")
        command = [sys.executable, "-I", "-S", str(guard), str(self.path)]
        self._guard = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)

    def part(self, name: str, *, unprivileged: bool = False) -> Path:
        """A new folder inside that only who runs the server can read."""
        path = self.path / name
        path.mkdir(mode=0o700)
        if unprivileged and os.geteuid() == 0:
            shutil.chown(path, UNPRIVILEGED)
        return path

    def remove(self) -> None:
        """End the servers that still run, and remove everything."""
        for process in self.processes:
            process.end(signal.SIGQUIT)
        if self._guard.stdin is not None:
            self._guard.stdin.close()
        self._guard.wait()


class Process:
    """One server process, noted in its folder for as long as it runs."""

    def __init__(self, folder: Folder, command: Sequence[str], *, unprivileged: bool) -> None:
        with (folder.path / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=folder.path,
                start_new_session=True,
                **(identity() if unprivileged else {}),
            )
        self._note = folder.path / "pids" / str(self._process.pid)
        self._note.touch()
        folder.processes.append(self)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def runs(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def end(self, ending: signal.Signals) -> None:
        """Send a signal that ends it, and wait until it has ended."""
        if self.runs():
            self._process.send_signal(ending)
            self._process.wait(PATIENCE)
        self._note.unlink(missing_ok=True)


def identity() -> dict[str, Any]:
    """How to run a child as somebody who may do little; nothing where we are nobody special."""
    if os.geteuid() != 0:
        return {}
    user = pwd.getpwnam(UNPRIVILEGED)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def run(command: Sequence[str], cwd: Path) -> None:
    """Run to its end what may do little. Raises ConfigurationError with its output."""
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, check=False, **identity()
    )
    if done.returncode:
        raise ConfigurationError(f"{command[0]} failed: {done.stdout}{done.stderr}")


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(ready: Callable[[], bool], process: Process, log: Path) -> None:
    """Wait for a server to be ready. Raises ConfigurationError with its log where it is not."""
    until = time.monotonic() + PATIENCE
    while not ready():
        if not process.runs() or time.monotonic() > until:
            raise ConfigurationError(f"a server did not start: {log.read_text()[-2000:]}")
        time.sleep(0.01)
