"""Tasks that nodes start beside the flow; they end with their session."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from typing import Any

log = logging.getLogger(__name__)


class TaskManager:
    """The tasks of one session, which are cancelled when it ends."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def create_task(
        self, coroutine: Coroutine[Any, Any, Any], name: str | None = None
    ) -> asyncio.Task[Any]:
        """Run a coroutine; what it raises is logged."""
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def cancel_task(self, task: asyncio.Task[Any], timeout: float | None = None) -> None:  # noqa: ASYNC109
        """Cancel a task, and wait until it has ended, at most for `timeout` seconds."""
        task.cancel()
        await asyncio.wait([task], timeout=timeout)

    def current_tasks(self) -> Sequence[asyncio.Task[Any]]:
        """Those that have not ended."""
        return tuple(self._tasks)

    def get_event_loop(self) -> asyncio.AbstractEventLoop:
        """The loop on which they run."""
        return asyncio.get_running_loop()

    async def close(self) -> None:
        """Cancel all of them, and wait for them, but for the one that is calling."""
        tasks = self._tasks - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("the task %s failed", task.get_name(), exc_info=task.exception())
