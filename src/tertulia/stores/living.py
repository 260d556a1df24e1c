"""What a process owes to its stores: to flush them at its end, and to have them dead after a fork.

Imported before any runtime is, so that at the end of the process the stores are closed after what
is yet to be written was handed to them.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Sequence
from typing import Any, Protocol
from weakref import WeakSet


class Living(Protocol):
    """A store with a thread of its own, and with files or connections."""

    def close_now(self) -> None: ...

    def abandon(self) -> Sequence[object]: ...


_living: WeakSet[Any] = WeakSet()


def remember(store: Living) -> None:
    _living.add(store)


def forget(store: Living) -> None:
    _living.discard(store)


def _after_fork() -> None:
    for store in list(_living):
        for inherited in store.abandon():
            import ctypes  # slow to import, and needed in forked children only

            ctypes.pythonapi.Py_IncRef(ctypes.py_object(inherited))
    _living.clear()


def _at_exit() -> None:
    for store in list(_living):
        store.close_now()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
