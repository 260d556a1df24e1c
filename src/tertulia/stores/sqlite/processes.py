"""What a process owes to its stores: to flush them at its end, and to be dead after a fork.

SQLite keeps its locks per process and finds them by the file's inode. A forked child has the
bookkeeping of locks that it does not hold, so a file that was open at the fork cannot be used in
the child at all, not even through a new connection.
"""

from __future__ import annotations

import atexit
import os
from typing import Any, Protocol
from weakref import WeakSet

from tertulia.errors import ForkedRuntimeError
from tertulia.stores.database import Database


class Living(Protocol):
    """A store with files and a thread of its own."""

    path: str

    def close_now(self) -> None: ...

    def abandon(self) -> list[Database]: ...


_living: WeakSet[Any] = WeakSet()
_inherited: set[tuple[int, int]] = set()


def remember(store: Living) -> None:
    _living.add(store)


def forget(store: Living) -> None:
    _living.discard(store)


def check_not_inherited(path: str) -> None:
    """Raises ForkedRuntimeError for a file that was open when this process was forked."""
    if _inherited and _identity(path) in _inherited:
        raise ForkedRuntimeError(
            f"{path} was open when os.fork made this process; start child processes by spawn"
        )


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - the path of a store is text
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _after_fork() -> None:
    for store in list(_living):
        identity = _identity(store.path)
        if identity:
            _inherited.add(identity)
        for connection in store.abandon():
            import ctypes  # slow to import, and needed in forked children only

            ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
    _living.clear()


def _at_exit() -> None:
    for store in list(_living):
        store.close_now()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
