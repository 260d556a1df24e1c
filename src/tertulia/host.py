"""The current runtime, as what sessions and entities need of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

from tertulia.clock import Clock, Ids
from tertulia.errors import ConfigurationError
from tertulia.stores.base import LogStore


class Host(Protocol):
    """What a runtime offers to the living things that it holds."""

    @property
    def store(self) -> LogStore:
        """Where logs and state are kept."""
        ...

    @property
    def clock(self) -> Clock:
        """Time."""
        ...

    @property
    def ids(self) -> Ids:
        """Random ids and salts."""
        ...

    @property
    def registry(self) -> dict[tuple[Any, ...], Any]:
        """What is shared by all objects of this runtime that mean the same thing."""
        ...


_current: ContextVar[Host | None] = ContextVar("tertulia_host", default=None)
_default: list[Callable[[], Host]] = []


def set_default(factory: Callable[[], Host]) -> None:
    """Say where the default host comes from; `runtime.py` does this."""
    _default[:] = [factory]


def current() -> Host:
    """The host of the enclosing ``async with Runtime``, else the configured default."""
    found = _current.get()
    if found is not None:
        return found
    if not _default:
        raise ConfigurationError("no runtime: import tertulia, or pass runtime=")
    return _default[0]()


@contextmanager
def using(host: Host | None) -> Iterator[None]:
    """Make a host the current one inside the block."""
    token = _current.set(host)
    try:
        yield
    finally:
        _current.reset(token)
