"""What we use of asyncpg, with types; imported when a connection is made."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

from tertulia.errors import MissingExtra

Row = Sequence[Any]
Listener = Callable[[Any, int, str, str], None]


class Transaction(Protocol):
    """``async with`` it."""

    async def __aenter__(self) -> None: ...

    async def __aexit__(self, *error: object) -> None: ...


class Connection(Protocol):
    """One connection; its driver's own types are unknown to a type checker."""

    async def fetch(self, text: str, *values: Any) -> list[Row]: ...

    async def execute(self, text: str, *values: Any) -> str: ...

    def transaction(self) -> Transaction: ...

    async def add_listener(self, channel: str, listener: Listener) -> None: ...

    def is_closed(self) -> bool: ...

    async def close(self) -> None: ...

    def terminate(self) -> None: ...


def module(name: str = "asyncpg") -> Any:
    """A module of the driver. Raises MissingExtra."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtra("postgres", "asyncpg") from error


async def connect(address: str, **options: Any) -> Connection:
    """A new connection; takes what asyncpg takes."""
    return cast("Connection", await module().connect(address, **options))
