"""Databases on a server, one for each test."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from secrets import token_hex
from urllib.parse import urlsplit, urlunsplit

from tertulia.stores.postgres import driver


def new_database(server: str) -> str:
    """Make an empty database; gives its address. Blocks, also on a thread with a running loop."""
    name = f"tertulia_{token_hex(8)}"
    _execute(server, f"CREATE DATABASE {name}")
    return urlunsplit(urlsplit(server)._replace(path=f"/{name}"))


def empty_database(address: str) -> None:
    """Make a database of ours as new, whoever is connected to it: faster than another one."""
    _execute(
        address,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid(); "
        "DROP SCHEMA IF EXISTS tertulia CASCADE; DROP EXTENSION IF EXISTS vector",
    )


def drop_database(address: str) -> None:
    """Remove a database that `new_database` made, whoever is connected to it."""
    parts = urlsplit(address)
    server = urlunsplit(parts._replace(path="/postgres"))
    _execute(server, f"DROP DATABASE {parts.path[1:]} WITH (FORCE)")


def _execute(address: str, text: str) -> None:
    async def work() -> None:
        connection = await driver.connect(address)
        try:
            await connection.execute(text)
        finally:
            await connection.close()

    _on_a_thread(work)


def _on_a_thread(work: Callable[[], Awaitable[None]]) -> None:
    """Run a coroutine to its end, whatever loop this thread runs."""
    failed: list[BaseException] = []

    async def inside() -> None:
        await work()

    def target() -> None:
        try:
            asyncio.run(inside())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=target)
    thread.start()
    thread.join()
    for error in failed:
        raise error
