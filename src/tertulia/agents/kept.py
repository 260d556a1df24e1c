"""Clients of providers: one for each event loop, closed when the loop ends or nobody has it."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, Callable
from contextvars import copy_context
from typing import Any, Generic, Protocol, TypeVar
from weakref import finalize

from tertulia.agents.failures import prefix_of
from tertulia.agents.portal import hold
from tertulia.stores.aside import aside

MOST = 64
"""Names that a process holds on to; another name lets go of the oldest."""

Loop = asyncio.AbstractEventLoop


class Closing(Protocol):
    """Something that belongs to the event loop on which it is used first."""

    async def close(self) -> None:
        """Close its connections, on that loop."""
        ...


C = TypeVar("C", bound=Closing)
M = TypeVar("M")


class _Kept(Generic[C]):
    """A client of a loop, and what closes it at the loop's end, or when nobody has it any more."""

    def __init__(self, client: C) -> None:
        self.client = client
        self.keeper: AsyncGenerator[None] | None = None
        self.let_go: finalize[..., Any] | None = None

    async def keep(self, loop: Loop, of: dict[Loop, _Kept[C]]) -> AsyncGenerator[None]:
        """Waits for the end of a loop, which closes its generators, so this, and the client."""
        try:
            yield
        finally:
            of.pop(loop, None)
            self.forget()
            await self.client.close()

    def forget(self) -> None:
        """Close nothing when nobody has it any more."""
        if self.let_go is not None:
            self.let_go.detach()

    async def close(self) -> None:
        """Close the client."""
        if self.keeper is not None:
            await self.keeper.aclose()


class PerLoop(Generic[C]):
    """A client for each event loop; for none that is gone."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[Loop, _Kept[C]] = {}

    async def get(self, make: Callable[[], C]) -> C:
        """The client of the running loop; `make` makes it on a thread. Raises what `make` does."""
        loop = asyncio.get_running_loop()
        kept = self._kept.get(loop)
        if kept is None:
            context = copy_context()
            kept = await aside(lambda: context.run(self._make, loop, make))
        if kept.keeper is None:
            kept.keeper = kept.keep(loop, self._kept)
            kept.let_go = finalize(self, _close_soon, loop, kept)
            kept.let_go.atexit = False
            await anext(kept.keeper)
        return kept.client

    def _make(self, loop: Loop, make: Callable[[], C]) -> _Kept[C]:
        with self._lock:
            for old, gone in list(self._kept.items()):
                if old.is_closed():
                    self._kept.pop(old, None)
                    gone.forget()
            kept = self._kept.get(loop)
            if kept is None:
                kept = self._kept[loop] = _Kept(make())
        return kept


class Named(Generic[M]):
    """What a process has of models by name, the newest `MOST` of them."""

    def __init__(self, make: Callable[[str], M]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._found: dict[tuple[str | None, ...], M] = {}

    def get(self, name: str) -> M:
        """The one with a name, as long as the variables of its provider stay the same."""
        prefix = prefix_of(name)
        key = (name, *(os.environ.get(f"{prefix}_{what}") for what in ("API_KEY", "BASE_URL")))
        with self._lock:
            found = self._found[key] = self._found.pop(key, None) or self._make(name)
            while len(self._found) > MOST:
                del self._found[next(iter(self._found))]
        return found


def _close_soon(loop: Loop, kept: _Kept[Any]) -> None:
    """Close a client that nobody has any more, on its own loop."""
    try:
        loop.call_soon_threadsafe(hold, kept.close)
    except RuntimeError:
        return  # the loop was closed, and the client with it
