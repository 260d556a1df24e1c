"""The default runtime of the process, and those of stores that sessions were given."""

from __future__ import annotations

import atexit
import os
from typing import Any
from weakref import finalize

from tertulia import doors, settings
from tertulia import host as hosts
from tertulia.runtime import kept
from tertulia.runtime.runtime import Runtime
from tertulia.stores.base import LogStore


def runtime_for(store: Any = None) -> Runtime:
    """The runtime of a store (None: the configured default); the same one each time."""
    with kept.lock:
        if store is None:
            if not kept.default or kept.default[0]._pid != os.getpid():  # pyright: ignore[reportPrivateUsage]
                kept.default[:] = [Runtime()]
            return kept.default[0]
        if isinstance(store, Runtime):
            return store
        name = store if isinstance(store, str) else id(store)
        found = kept.by_store.get(name)
        if found is None:
            found = kept.by_store[name] = Runtime(store)
            if found._store is not store:  # pyright: ignore[reportPrivateUsage]
                finalize(found, _close_quietly, found._store, os.getpid())  # pyright: ignore[reportPrivateUsage]
        return found


def _close_quietly(store: LogStore, process: int) -> None:
    """Close a store that was made for sessions which are gone; what it was given is written."""
    if os.getpid() == process:
        doors.call(_closed(store))


async def _closed(store: LogStore) -> None:
    await store.close()


def configure(*, store: Any = None, model: Any = None) -> None:
    """Set the defaults of this process; an argument or an enclosing Runtime goes before them.

    `model` is a name such as ``"openai:gpt-4o"``, or a `Model`.

    Raises ConfigurationError for an address that cannot be.
    """
    if store is not None:
        made = Runtime(store)
        with kept.lock:
            old, kept.default[:] = list(kept.default), [made]
        for runtime in old:
            doors.call(runtime.close())
    if model is not None:
        settings.set_model(model)


def _flush_all() -> None:
    for runtime in list(kept.opened):
        if runtime._pid == os.getpid():  # pyright: ignore[reportPrivateUsage]
            doors.call(runtime.close())


hosts.set_default(runtime_for)
atexit.register(_flush_all)
