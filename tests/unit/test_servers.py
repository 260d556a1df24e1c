"""Servers for tests: one for all who share, none left behind, and nothing opened up for them."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tertulia.stores.postgres import driver
from tertulia.testing.servers import NatsServer, PostgresServer, new_database, postgres, server_url
from tertulia.testing.servers.processes import Folder

USER = """
import sys
from pathlib import Path
from tertulia.testing.servers import server_url
print(server_url("nats", Path(sys.argv[1])), flush=True)
sys.stdin.read()
"""

OWNER = """
import json, os, sys
from tertulia.testing.servers import PostgresServer, NatsServer
from tertulia.testing.servers.processes import Folder
folder = Folder()
servers = PostgresServer(folder), NatsServer(folder)
print(json.dumps([str(folder.path), folder._guard.pid, [s.pid for s in servers]]), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def folder() -> Iterator[Folder]:
    made = Folder()
    yield made
    made.remove()


def child(program: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def listens(address: str) -> bool:
    parts = urlsplit(address)
    try:
        socket.create_connection((parts.hostname or "", parts.port or 0), timeout=1).close()
    except OSError:
        return False
    return True


async def test_a_server_has_its_data_after_it_was_stopped_and_after_it_crashed(
    folder: Folder,
) -> None:
    server = PostgresServer(folder)
    address = new_database(server.url)
    for number, again in enumerate((server.stop, server.crash, lambda: None)):
        connection = await driver.connect(address)
        await connection.execute("CREATE TABLE IF NOT EXISTS kept (number int)")
        await connection.execute("INSERT INTO kept VALUES ($1)", number)
        ((found,),) = await connection.fetch("SELECT count(*) FROM kept")
        await connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        await connection.close()
        assert found == number + 1
        again()
        if number < 2:
            server.start()


def test_a_killed_owner_leaves_neither_a_server_nor_a_folder() -> None:
    owner = child(OWNER)
    folder, guard, servers = json.loads(line(owner))
    assert Path(folder).exists()
    watched = os.pidfd_open(guard)
    owner.send_signal(signal.SIGKILL)
    owner.communicate()
    assert ends(watched)
    assert not Path(folder).exists()
    for number in servers:
        with pytest.raises(ProcessLookupError):
            os.kill(number, 0)


def ends(process: int) -> bool:
    """A process that is not our child has ended when its descriptor is readable."""
    readable, _, _ = select.select([process], [], [], 30)
    os.close(process)
    return bool(readable)


def test_all_who_share_a_folder_share_one_server_until_the_last_is_gone(tmp_path: Path) -> None:
    users = [child(USER, str(tmp_path)) for _ in range(3)]
    addresses = {line(user) for user in users}
    assert len(addresses) == 1
    address = addresses.pop()
    for user in users:
        assert listens(address)
        end(user)
    later = child(USER, str(tmp_path))
    assert listens(line(later))
    end(later)


def test_both_run_in_the_foreground_until_they_are_interrupted() -> None:
    command = [sys.executable, "-m", "tertulia.testing.servers"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    said = [line(process).removeprefix("export ").partition("=") for _ in range(4)]
    assert [name for name, _, _ in said] == [
        "TERTULIA_TEST_POSTGRES",
        "TERTULIA_STORE",
        "TERTULIA_TEST_NATS",
        "TERTULIA_BUS",
    ]
    assert all(listens(address) for _, _, address in said)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 0
    assert not any(listens(address) for _, _, address in said)
    process.communicate()


def test_a_server_of_the_environment_is_used_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERTULIA_TEST_NATS", "nats://there:4222")
    assert server_url("nats", tmp_path) == "nats://there:4222"
    assert list(tmp_path.iterdir()) == []


def test_a_nats_server_comes_back_at_its_address(folder: Folder) -> None:
    server = NatsServer(folder)
    server.stop()
    assert not listens(server.url)
    server.start()
    assert listens(server.url)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root must take care")
def test_a_wheel_in_a_private_folder_is_copied_and_the_folder_stays_private(
    tmp_path: Path, folder: Folder
) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    wheel = private / postgres.WHEEL / postgres.INSTALLED
    (wheel / "bin").mkdir(parents=True)
    found = postgres.reachable(wheel, folder)
    assert found.is_relative_to(folder.path)
    assert (found / "bin").is_dir()
    assert private.stat().st_mode & 0o777 == 0o700
    shutil.rmtree(private)
