"""One server for all processes of a test run; it lives as long as one of them."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from tertulia.errors import ConfigurationError
from tertulia.testing.servers.nats import NatsServer
from tertulia.testing.servers.postgres import PostgresServer
from tertulia.testing.servers.processes import Folder

Kind = Literal["postgres", "nats"]
IN_ENVIRONMENT: dict[Kind, str] = {
    "postgres": "TERTULIA_TEST_POSTGRES",
    "nats": "TERTULIA_TEST_NATS",
}
ENDING = frozenset({signal.SIGINT, signal.SIGTERM})
FOR_DEVELOPMENT: dict[Kind, str] = {"postgres": "TERTULIA_STORE", "nats": "TERTULIA_BUS"}
_held: list[int] = []
"""Locks that this process keeps to its end: they say that it uses a server."""


def server_url(kind: Kind, folder: Path) -> str:
    """The address of a server: that in the environment, else one that all share who name `folder`.

    It is started by the first who asks, and ends when the last of them has ended. Raises
    ConfigurationError.
    """
    if named := os.environ.get(IN_ENVIRONMENT[kind]):
        return named
    with _locked(folder / f"{kind}.starting"):
        _held.append(_lock(folder / f"{kind}.users", fcntl.LOCK_SH))
        address = folder / f"{kind}.url"
        if not address.exists():
            _start_keeper(kind, folder)
        return address.read_text()


def keep(kind: Kind, folder: Path) -> None:
    """Run a server until nobody uses it any more: what the first who asks starts."""
    server = PostgresServer() if kind == "postgres" else NatsServer()
    address = folder / f"{kind}.url"
    try:
        address.touch(mode=0o600)
        address.write_text(server.url)
        print("ready", flush=True)
        with _locked(folder / f"{kind}.users"):
            address.unlink()
    finally:
        server.close()


def foreground() -> None:
    """Run both servers and say their addresses, until a signal ends it."""
    folder = Folder()
    try:
        servers = PostgresServer(folder), NatsServer(folder)
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)  # from before it is said that they run
        for kind, server in zip(IN_ENVIRONMENT, servers, strict=True):
            for name in (IN_ENVIRONMENT[kind], FOR_DEVELOPMENT[kind]):
                print(f"export {name}={server.url}", flush=True)
        print("Ctrl-C stops both and removes their data", file=sys.stderr, flush=True)
        signal.sigwait(ENDING)
    finally:
        folder.remove()


def _start_keeper(kind: Kind, folder: Path) -> None:
    command = [sys.executable, "-m", "tertulia.testing.servers", kind, str(folder)]
    keeper = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
    )
    if keeper.stdout is None:
        raise ConfigurationError("a server could not be started")
    with keeper.stdout as output:
        said = output.readline()
        if said != "ready\n":
            raise ConfigurationError(f"no {kind} server could be started: {said}{output.read()}")
    keeper.returncode = 0  # it outlives us, and nobody waits for it


def _lock(path: Path, kind: int) -> int:
    file = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    fcntl.flock(file, kind)
    return file


@contextmanager
def _locked(path: Path) -> Generator[None]:
    file = _lock(path, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(file)
