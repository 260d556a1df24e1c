"""A network cut between one worker and the database, for real: a namespace of its own, as root."""

from __future__ import annotations

import asyncio
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest
from scripts import setup_iproute
from tests.cluster.checker import check
from tests.cluster.talking import load, said_in
from tests.cluster.workers import Client, Worker, all_ready, leased, started

from tertulia.testing.servers import PostgresServer, new_database

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]


class Namespace:
    """A network of its own with two cables to ours: one for the database, one for clients."""

    def __init__(self) -> None:
        self.name = f"tertulia{os.getpid()}"
        self._ip("netns", "add", self.name)
        number = os.getpid() % 200
        self.database, self._cable = self._connect("d", f"10.231.{number}")
        _, self._clients = self._connect("c", f"10.232.{number}")
        self.inside = f"10.232.{number}.2"
        """Where clients reach who is in it."""
        self.within = (ip(), "netns", "exec", self.name)

    def cut(self) -> None:
        """Part it from the database; nobody is told."""
        self._ip("link", "set", self._cable, "down")

    def heal(self) -> None:
        """Join it again."""
        self._ip("link", "set", self._cable, "up")

    def close(self) -> None:
        """Remove it, with its cables."""
        for cable in (self._cable, self._clients):
            self._ip("link", "delete", cable)
        self._ip("netns", "delete", self.name)

    def _connect(self, letter: str, net: str) -> tuple[str, str]:
        """A cable; the address of our end, and its name."""
        ours, theirs = f"t{letter}o{os.getpid()}", f"t{letter}i{os.getpid()}"
        self._ip("link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", self.name)
        self._ip("address", "add", f"{net}.1/30", "dev", ours)
        self._ip("link", "set", ours, "up")
        self._ip("-n", self.name, "address", "add", f"{net}.2/30", "dev", theirs)
        self._ip("-n", self.name, "link", "set", theirs, "up")
        return f"{net}.1", ours

    def _ip(self, *words: str) -> None:
        subprocess.run([ip(), *words], check=True)


def ip() -> str:
    found = setup_iproute.find()
    assert found is not None, "there is no ip; run: make test-system"
    return found


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    made = Namespace()
    yield made
    made.close()


@pytest.fixture
def server(namespace: Namespace) -> Iterator[PostgresServer]:
    """A PostgreSQL that is reached from the namespace too."""
    access = Path(tempfile.gettempdir()) / f"{namespace.name}.hba"
    access.write_text("host all all 0.0.0.0/0 scram-sha-256\n")
    access.chmod(0o644)
    addresses = f"127.0.0.1,{namespace.database}"
    made = PostgresServer(settings={"listen_addresses": addresses, "hba_file": str(access)})
    yield made
    made.close()
    access.unlink()


def through(address: str, host: str) -> str:
    """The same database at another address of its server."""
    parts = urlsplit(address)
    user = parts.netloc.rpartition("@")[0]
    return urlunsplit(parts._replace(netloc=f"{user}@{host}:{parts.port}"))


async def test_a_worker_parted_from_the_database_stops_and_others_go_on_with_its_sessions(
    namespace: Namespace, server: PostgresServer
) -> None:
    address = leased(new_database(server.url))
    parted = Worker(
        through(address, namespace.database), host=namespace.inside, within=namespace.within
    )
    with started(parted, Worker(address)) as workers:
        await all_ready(workers)
        other = Client(workers[1:])
        await other.create("s")
        asked = asyncio.create_task(
            parted.ask("POST", "/v1/sessions/s/run", {"input": "slow 600 lost"})
        )
        await parted.says("began: slow 600 lost")
        namespace.cut()
        await parted.says("stopped: slow 600 lost")
        await other.say("s", "say after")
        namespace.heal()
        assert (await asked).status >= 400
        both = Client(workers)
        for turn in range(4):
            await both.say("s", f"say again {turn}", first=turn)
        texts = await said_in(address, "s")
        assert texts[:2] == ["say after", "after"]
        assert not any("lost" in text for text in texts)
        await check(address, other.acknowledged + both.acknowledged)


async def test_a_network_that_is_cut_again_and_again_under_load_loses_nothing(
    namespace: Namespace, server: PostgresServer
) -> None:
    address = leased(new_database(server.url))
    parted = Worker(
        through(address, namespace.database), host=namespace.inside, within=namespace.within
    )
    with started(parted, Worker(address)) as workers:
        await all_ready(workers)
        client = Client(workers)
        async with load(client) as more:
            for seconds in (0.2, 1, 4):
                await more(20)
                namespace.cut()
                await asyncio.sleep(seconds)
                namespace.heal()
            await more(20)
        await check(address, client.acknowledged)
