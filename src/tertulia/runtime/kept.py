"""What this process keeps of its runtimes: which are open, the default one, those of stores."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any
from weakref import WeakSet, WeakValueDictionary, ref

if TYPE_CHECKING:
    from tertulia.runtime.runtime import Runtime

opened: WeakSet[Runtime] = WeakSet()
by_store: WeakValueDictionary[int | str, Runtime] = WeakValueDictionary()
default: list[Runtime] = []
lock = threading.Lock()
"""Held while `by_store` or `default` is changed."""
_unwritten: set[Runtime] = set()


class Dirty(set[Any]):
    """What is yet to be written of a runtime, which lives on until it is."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__()
        self._runtime = ref(runtime)

    def add(self, element: Any, /) -> None:
        """One thing more is to be written."""
        runtime = self._runtime()
        if runtime is not None:
            _unwritten.add(runtime)
        super().add(element)

    def discard(self, element: Any, /) -> None:
        """It is written."""
        super().discard(element)
        runtime = self._runtime()
        if not self and runtime is not None:
            _unwritten.discard(runtime)


def forget(runtime: Runtime) -> None:
    """A closed runtime is nobody's default any more."""
    with lock:
        if runtime in default:
            default.clear()
        for name, known in list(by_store.items()):
            if known is runtime:
                del by_store[name]
