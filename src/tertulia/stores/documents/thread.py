"""One thread that does what blocks, in order."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import TypeVar

from tertulia.doors import Outcome
from tertulia.errors import StoreClosed

T = TypeVar("T")
Job = Callable[[], None]


class Thread:
    """Runs jobs one after another, beside every event loop; started by the first of them.

    As many jobs wait as callers do. At the end of the process, where no thread can be started
    any more, a job runs in its caller.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False

    def submit(self, work: Callable[[], T]) -> Outcome[T]:
        """Run `work` after all that was submitted before. Raises StoreClosed."""
        outcome: Outcome[T] = Outcome()

        def job() -> None:
            try:
                outcome.set_result(work())
            except BaseException as error:
                outcome.set_error(error)

        with self._lock:
            if self._closed:
                raise StoreClosed("this store is closed; make a new one")
            started = self._start()
            if started:
                self._jobs.put(job)
        if not started:
            job()
        return outcome

    def stop(self) -> None:
        """Finish what was submitted and end the thread. Again is no error."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._jobs.put(None)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _start(self) -> bool:
        if self._thread is not None:
            return self._thread.is_alive()
        thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        try:
            thread.start()
        except RuntimeError:
            return False
        self._thread = thread
        return True

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
