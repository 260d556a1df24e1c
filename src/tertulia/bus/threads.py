"""The thread of a listener that would hold up an event loop, or that has none."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from threading import Event, Lock, Thread

from tertulia.bus.base import BusEvent
from tertulia.bus.mailbox import Call, Loop
from tertulia.errors import UsageError

LINGER = 1.0
"""Seconds that an idle thread waits for more."""


class InThread:
    """Calls a sync listener in a thread of its own, which ends when it was idle for a while."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._bell = Event()
        self._lock = Lock()
        self._alive = False

    def wake(self, running: Loop | None) -> None:
        with self._lock:
            self._bell.set()
            if self._alive:
                return
            self._alive = True
        run = self._call.context.copy().run
        try:
            Thread(target=run, args=(self._work,), name="tertulia-bus", daemon=True).start()
        except RuntimeError as error:
            self._call.mailbox.drop_out(f"no thread could be started for it ({error})")

    def stop(self) -> None:
        """Let the thread end after the call that it is in."""
        self._bell.set()

    def gone(self) -> bool:
        return False

    def beside(self, running: Loop) -> bool:
        return True

    def _work(self) -> None:
        mailbox = self._call.mailbox
        while not mailbox.closed:
            self._bell.clear()
            while (event := mailbox.take()) is not None:
                self._handle(event)
            if mailbox.closed or self._bell.wait(LINGER):
                continue
            with self._lock:
                if not self._bell.is_set():
                    self._alive = False
                    return

    def _handle(self, event: BusEvent) -> None:
        mailbox = self._call.mailbox
        try:
            result = self._call.fn(event)
            if isinstance(result, Coroutine):
                result.close()
                raise UsageError("an async listener needs a loop: call listen where one runs")
        except (Exception, asyncio.CancelledError) as error:
            mailbox.failed(error)
        mailbox.done += 1
