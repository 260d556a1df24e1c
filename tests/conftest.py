"""Fixtures that every test may use, and what a run says at its end."""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tertulia.testing.servers import drop_database, empty_database, new_database, server_url

ELSEWHERE = {"system": "make test-system", "soak": "make soak"}


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Async tests run on asyncio."""
    return "asyncio"


@pytest.fixture(scope="session")
def servers_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What all processes of this test run share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def nats(servers_folder: Path) -> str:
    """The address of a NATS server."""
    return server_url("nats", servers_folder)


@pytest.fixture(scope="session")
def postgres_server(servers_folder: Path) -> str:
    """The address of a PostgreSQL server, as its superuser."""
    return server_url("postgres", servers_folder)


@pytest.fixture(scope="session")
def databases(postgres_server: str) -> Iterator[list[str]]:
    """Databases of this process that no test uses."""
    free: list[str] = []
    yield free
    if "TERTULIA_TEST_POSTGRES" in os.environ:
        for address in free:
            drop_database(address)


@pytest.fixture
def new_postgres(postgres_server: str, databases: list[str]) -> Iterator[Callable[[], str]]:
    """Gives empty databases, which are another test's when this one has ended."""
    lent: list[str] = []

    def lend() -> str:
        lent.append(databases.pop() if databases else new_database(postgres_server))
        return lent[-1]

    yield lend
    for address in lent:
        empty_database(address)
    databases += lent


@pytest.fixture
def postgres(new_postgres: Callable[[], str]) -> str:
    """The address of an empty database."""
    return new_postgres()


def pytest_collection_finish() -> None:
    """Let no collection of garbage look through what stays until the end of the run."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Name the files whose tests were left out by their marker, and the command that runs them."""
    chosen = str(config.getoption("markexpr"))
    for marker, command in ELSEWHERE.items():
        if f"not {marker}" in chosen:
            named = ", ".join(files_with(marker, config.rootpath))
            terminalreporter.write_line(f"left to `{command}`: {named}")


def files_with(marker: str, root: Path) -> list[str]:
    """The test files that use a marker, as paths from the root of the repository."""
    used = re.compile(rf"pytest\.mark\.{marker}\b")
    files = sorted((root / "tests").rglob("test_*.py"))
    return [str(file.relative_to(root)) for file in files if used.search(file.read_text())]
