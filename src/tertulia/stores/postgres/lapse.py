"""Whether the lease of this worker is about to run out, by the clock of this machine."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from time import monotonic

LAPSED = 0.8
"""The part of the lease after which it counts as about to run out."""

Tell = Callable[[bool], None]
log = logging.getLogger(__name__)


class Lapse:
    """Judged from when a renewal was sent, which is before the server counts from.

    Who is told is changed from any thread; all else happens on the loop of the store, so that
    everybody is told in the right order.
    """

    def __init__(self, lease: float) -> None:
        self._seconds = lease * LAPSED
        self._lock = threading.Lock()
        self._told: dict[object, tuple[Tell, bool]] = {}
        self._renewed: float | None = None

    def on_lapse(self, tell: Tell) -> Callable[[], None]:
        """Tell of every lapse from now on, and of one that is; returns the undo."""
        place = object()

        def undo() -> None:
            with self._lock:
                self._told.pop(place, None)

        with self._lock:
            self._told[place] = (tell, False)
        return undo

    def renewed(self, sent: float) -> None:
        """A renewal that was sent then has succeeded."""
        self._renewed = sent
        self.judge()

    def judge(self) -> float:
        """Tell those who believe something else; seconds until the lease is about to run out."""
        left = 1.0 if self._renewed is None else self._renewed + self._seconds - monotonic()
        lapsed = left <= 0
        with self._lock:
            news = [(place, tell) for place, (tell, told) in self._told.items() if told != lapsed]
        for place, tell in news:
            try:
                tell(lapsed)
            except Exception:
                log.exception("somebody could not be told of the lease of this worker: again")
                continue
            with self._lock:
                if place in self._told:
                    self._told[place] = (tell, lapsed)
        return left

    async def watch(self, pause: float) -> None:
        """Judge in time, until cancelled."""
        while True:
            left = self.judge()
            await asyncio.sleep(min(left, pause) if left > 0 else pause)
