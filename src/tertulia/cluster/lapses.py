"""Lapses: how often the lease of a worker has run out, and who is told of it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable

from tertulia.doors import current_loop

Tell = Callable[[bool], None]


class Lapses:
    """Hears of lapses on the thread of the store, and tells others."""

    def __init__(self) -> None:
        self.count = 0
        """How many there were: what this worker had before the newest is not its own."""
        self.now = False
        """Whether the lease has run out now: nothing can be written, and others may take over."""
        self._lock = threading.Lock()
        self._told: tuple[_Told, ...] = ()

    def tell(self, tell: Tell, *, anywhere: bool) -> Callable[[], None]:
        """Tell of the end of the lease, True, and of its return, False; gives the undo.

        On the event loop that runs now; `anywhere` means on the thread of the store, after those
        with a loop were sent word: connections are closed before their turns are stopped.
        """
        told = _Told(tell, None if anywhere else current_loop())
        with self._lock:
            self._told = (*self._told, told) if anywhere else (told, *self._told)

        def forget() -> None:
            with self._lock:
                self._told = tuple(each for each in self._told if each is not told)

        return forget

    def note(self, lapsed: bool) -> None:
        """The lease has run out, or is renewed."""
        self.count += lapsed
        self.now = lapsed
        for told in self._told:
            told(lapsed)


class _Told:
    """Who is told of lapses, and where."""

    def __init__(self, tell: Tell, loop: asyncio.AbstractEventLoop | None) -> None:
        self._tell = tell
        self._loop = loop

    def __call__(self, lapsed: bool) -> None:
        if self._loop is None:
            self._tell(lapsed)
        else:
            with contextlib.suppress(RuntimeError):  # whoever was there went with the loop
                self._loop.call_soon_threadsafe(self._tell, lapsed)
