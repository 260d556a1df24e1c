"""The current runtime, as what sessions and entities need of it."""

from __future__ import annotations

from collections.abc import Callable, Generator, MutableMapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from tertulia.clock import Clock, Ids
from tertulia.errors import ConfigurationError
from tertulia.messages import Message
from tertulia.pruning import Condensed, Judged
from tertulia.stores.base import LogStore

if TYPE_CHECKING:
    from tertulia.cluster.cluster import Cluster
    from tertulia.gate import Slots


class Condenser(Protocol):
    """Makes older messages shorter, by asking a model outside of the session that they are in."""

    async def summarize(self, messages: Sequence[Message], earlier: str | None = None) -> Condensed:
        """A summary of some messages, and of an earlier summary. Raises ModelError."""
        ...

    async def judge(self, messages: Sequence[Message]) -> Judged:
        """Which of some messages are important. Raises ModelError."""
        ...


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
    def model(self) -> Any:
        """The model of agents that name none; None leaves it to `configure`."""
        ...

    @property
    def slots(self) -> Slots:
        """The places for the turns that run at once in this process."""
        ...

    @property
    def cluster(self) -> Cluster | None:
        """What this process is among the workers of its database; None for other stores."""
        ...

    @property
    def registry(self) -> MutableMapping[tuple[Any, ...], Any]:
        """What is shared by all objects of this runtime that mean the same thing; weakly held."""
        ...

    @property
    def dirty(self) -> set[Any]:
        """Conversations with state that is yet to be written; they are kept alive."""
        ...

    @property
    def unwritten(self) -> dict[tuple[str, str | None, str | None, str], Any]:
        """The newest write of each key of shared state that is yet to be written."""
        ...

    def condenser(self, driver: Any = None, agent: Any = None) -> Condenser:
        """A condenser by an agent as it is, else by the model of the driver of a session, else by
        the configured default model. Raises ConfigurationError where there is none."""
        ...

    def memory(self, user_id: str | None = None, app_name: str | None = None) -> Any:
        """The memory of a user in an app, or without a user of the app."""
        ...


_current: ContextVar[Host | None] = ContextVar("tertulia_host", default=None)
_default: list[Callable[[Any], Host]] = []


def set_default(factory: Callable[[Any], Host]) -> None:
    """Say where a host for a store comes from (None: the default one); `runtime.py` does this."""
    _default[:] = [factory]


def for_store(store: Any) -> Host:
    """The host of a store, or of the address of one."""
    if not _default:
        raise ConfigurationError("no runtime: import tertulia, or pass runtime=")
    return _default[0](store)


def enclosing() -> Host | None:
    """The host of the enclosing ``async with Runtime``, if there is one."""
    return _current.get()


def current() -> Host:
    """The host of the enclosing ``async with Runtime``, else the configured default."""
    found = _current.get()
    return for_store(None) if found is None else found


@contextmanager
def using(host: Host | None) -> Generator[None, None, None]:
    """Make a host the current one inside the block."""
    before = _current.get()
    _current.set(host)
    try:
        yield
    finally:
        _current.set(before)
