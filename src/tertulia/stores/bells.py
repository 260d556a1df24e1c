"""Bells: whoever watches a session is told to look again, and nothing else."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable

log = logging.getLogger(__name__)
Bell = Callable[[], None]


class Bells:
    """Who watches which session. Changed under a lock, read without one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watchers: dict[int, tuple[Bell, ...]] = {}

    def __bool__(self) -> bool:
        return bool(self._watchers)

    def watched(self) -> list[int]:
        """The sessions that somebody watches."""
        with self._lock:
            return list(self._watchers)

    def watch(self, session: int, bell: Bell) -> Callable[[], None]:
        """Ring `bell` when `session` is rung; returns the undo, which may be called again."""

        def ring() -> None:
            bell()

        def unwatch() -> None:
            with self._lock:
                left = tuple(one for one in self._watchers.get(session, ()) if one is not ring)
                if left:
                    self._watchers[session] = left
                else:
                    self._watchers.pop(session, None)

        with self._lock:
            self._watchers[session] = (*self._watchers.get(session, ()), ring)
        return unwatch

    def ring(self, sessions: Iterable[int]) -> None:
        """Ring each bell of some sessions once."""
        watchers = self._watchers
        if watchers:
            for session in set(sessions):
                for bell in watchers.get(session, ()):
                    _ring(bell)

    def ring_all(self) -> None:
        with self._lock:
            every = [bell for bells in self._watchers.values() for bell in bells]
        for bell in every:
            _ring(bell)


def _ring(bell: Bell) -> None:
    """One bell that is broken, its loop closed say, must not silence the others."""
    try:
        bell()
    except Exception:
        log.exception("a bell of a watched session is broken")
