"""What a process owes to its stores: to flush them at its end, and to be dead after a fork.

A forked child shares the sockets and the selector of its parent: to close one of them there would
take it away from the parent's loop.
"""

from __future__ import annotations

import atexit
import os
from typing import Any, Protocol
from weakref import WeakSet


class Living(Protocol):
    """A store with connections and a thread of its own."""

    def close_now(self) -> None: ...

    def abandon(self) -> object: ...


_living: WeakSet[Any] = WeakSet()


def remember(store: Living) -> None:
    _living.add(store)


def forget(store: Living) -> None:
    _living.discard(store)


def _after_fork() -> None:
    for store in list(_living):
        inherited = store.abandon()
        import ctypes  # slow to import, and needed in forked children only

        ctypes.pythonapi.Py_IncRef(ctypes.py_object(inherited))
    _living.clear()


def _at_exit() -> None:
    for store in list(_living):
        store.close_now()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
