"""Progress of long work: a bar on standard error, if that is a terminal, and only if it is long."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from tertulia.stores.base import LogStore, Segment, SessionRow

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from tertulia.events import Record

PATIENCE = 0.3
"""Seconds without a bar: what is done by then needs none."""


class Bar:
    """How far some work is. It costs nothing until it is shown."""

    def __init__(self, what: str, total: int | None = None) -> None:
        self._what = what
        self.done = 0
        """How many steps are done."""
        self.total = total
        """How many steps there are; None as long as that is unknown."""
        self._began = time.monotonic()
        self._shown: tuple[Progress, TaskID] | None = None

    def advance(self, steps: int = 1) -> None:
        """So many steps more are done."""
        self.reach(self.done + steps, self.total)

    def reach(self, done: int, total: int | None = None) -> None:
        """So many steps are done, of so many."""
        self.done, self.total = done, total if total is not None else self.total
        if self._shown is None:
            if not sys.stderr.isatty() or time.monotonic() - self._began < PATIENCE:
                return
            self._shown = _show(self._what)
        progress, task = self._shown
        progress.update(task, completed=done, total=self.total)

    def close(self) -> None:
        """Take it away."""
        if self._shown is not None:
            self._shown[0].stop()
            self._shown = None


def _show(what: str) -> tuple[Progress, TaskID]:
    from rich.console import Console
    from rich.progress import Progress

    progress = Progress(console=Console(stderr=True), transient=True)
    progress.start()
    return progress, progress.add_task(what, total=None)


def counted(store: LogStore, bar: Bar) -> LogStore:
    """The same store; a bar advances by the events, or else the sessions, that are read from it."""
    return cast("LogStore", _Counted(store, bar))


class _Counted:
    """A store through which a bar sees what is read; all else is the store's own."""

    def __init__(self, store: LogStore, bar: Bar) -> None:
        self._store = store
        self._bar = bar

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def records(self, segments: Sequence[Segment], *args: Any, **kw: Any) -> list[Record]:
        """What the store gives, counted."""
        found = await self._store.records(segments, *args, **kw)
        self._bar.advance(len(found))
        return found

    async def rows(self, **kw: Any) -> list[SessionRow]:
        """What the store gives; the bar is told that it goes on."""
        found = await self._store.rows(**kw)
        self._bar.advance(len(found))
        return found
