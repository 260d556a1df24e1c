"""The thread on which turns run that synchronous code asked for: one a process."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from typing import Any

from tertulia.errors import UsageError

Work = Callable[[], Coroutine[Any, Any, None]]
_CLOSING = 2.0
"""Seconds that turns have to close at exit."""


class Portal:
    """An event loop on a daemon thread of its own."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="tertulia-portal", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether its thread runs, in this process."""
        return self.pid == os.getpid() and self._thread.is_alive()

    def check_caller(self) -> None:
        """Raise UsageError on the portal's own thread, where waiting for it would never end."""
        if threading.current_thread() is self._thread:
            raise UsageError(
                "a synchronous call inside an asynchronous tool would wait for itself; "
                "await run_async or iterate over stream_async instead"
            )

    def start(self, work: Work, at_end: Callable[[], None]) -> None:
        """Start work as a task, in a copy of the caller's context; `at_end` is called after it."""
        context = copy_context()

        def begin() -> None:
            hold(work, context).add_done_callback(lambda _: at_end())

        self._loop.call_soon_threadsafe(begin)

    def close(self) -> None:
        """Cancel what runs, wait for it shortly, and end the thread."""
        if os.getpid() != self.pid or not self._thread.is_alive():
            return
        asyncio.run_coroutine_threadsafe(self._cancel_all(), self._loop)
        self._thread.join(_CLOSING + 1)

    async def _cancel_all(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_CLOSING)
        self._loop.stop()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            self._loop.close()


_tasks: set[asyncio.Task[None]] = set()
_portals: list[Portal] = []
_lock = threading.Lock()


def hold(work: Work, context: Context | None = None) -> asyncio.Task[None]:
    """Start work as a task of the running loop, and hold it until it has ended."""
    task = asyncio.get_running_loop().create_task(work(), context=context)
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)
    return task


def portal() -> Portal:
    """The portal of this process; a forked child gets one of its own."""
    with _lock:
        if not _portals or not _portals[0].alive:
            _portals[:] = [Portal()]
        return _portals[0]


def _close() -> None:
    for each in _portals:
        each.close()


def _after_fork() -> None:
    global _lock  # noqa: PLW0603
    _lock = threading.Lock()
    _tasks.clear()


atexit.register(_close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
