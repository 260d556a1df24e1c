"""A thread with an event loop of its own, and the way to it from any thread or loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from tertulia.doors import Outcome
from tertulia.errors import UsageError

T = TypeVar("T")


class LoopThread:
    """Runs coroutines beside every other loop; ends when it is told to."""

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped = False
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        self._thread.start()

    def check_not_mine(self) -> None:
        """Raises UsageError on this thread itself, which would wait for itself for ever."""
        if threading.current_thread() is self._thread:
            raise UsageError(
                "this was called on the thread that serves it, as a bell is; do no more there than "
                "to wake up whoever reads"
            )

    def submit(self, work: Coroutine[Any, Any, T]) -> Outcome[T]:
        """Run a coroutine to its end, whatever becomes of who waits for it."""
        outcome: Outcome[T] = Outcome()

        async def carry() -> None:
            try:
                outcome.set_result(await work)
            except BaseException as error:
                outcome.set_error(error)
                if not isinstance(error, Exception):
                    raise

        try:
            self.loop.call_soon_threadsafe(lambda: self.start(carry()))
        except RuntimeError:
            work.close()
            raise
        return outcome

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Begin a task of the loop, on its thread."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def stop(self) -> None:
        """End the thread, and what still runs on it; once more waits for its end."""
        if not self._stopped:
            self._stopped = True
            with contextlib.suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self.loop.stop)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _main(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
            for task in asyncio.all_tasks(self.loop):
                task.cancel()
            self.loop.run_until_complete(_ended(asyncio.all_tasks(self.loop)))
        finally:
            self.loop.close()


async def _ended(tasks: set[asyncio.Task[Any]]) -> None:
    others = tasks - {asyncio.current_task()}
    await asyncio.gather(*others, return_exceptions=True)
