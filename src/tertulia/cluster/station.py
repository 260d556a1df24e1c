"""The station of a worker: its switchboard, made when it is first needed, and once for a loop."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Sequence
from functools import partial

from tertulia.cluster.calls import Handler
from tertulia.cluster.channels import Channel
from tertulia.cluster.pipes import Pipe
from tertulia.cluster.switchboard import Switchboard
from tertulia.doors import Outcome
from tertulia.errors import ForkedRuntimeError, StoreClosed


class Station:
    """Gives the switchboard that speaks with other workers, and knows who answers what.

    Handlers run on the loop on which it was first asked for; when that is closed, on the next one
    that asks. `pipes` makes the pipes of a switchboard. Any thread or loop may use it.
    """

    def __init__(self, worker: bytes, pipes: Callable[[], Sequence[Pipe]]) -> None:
        self._worker = worker
        self._pipes = pipes
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._handlers: dict[str, Handler] = {}
        self._known: set[str] = set()
        """What the switchboard that runs has been told to serve."""
        self._running: Switchboard | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._starting: Outcome[None] | None = None
        """Given when somebody who starts a switchboard has done so, or has failed."""
        self._closed = False

    async def switchboard(self) -> Switchboard:
        """The switchboard, which has started.

        Raises StoreClosed after `close`, ForkedRuntimeError, and what its start raised; the next
        one who asks begins anew then.
        """
        if os.getpid() != self._pid:
            raise ForkedRuntimeError("other workers were spoken to before os.fork; make a Runtime")
        while True:
            with self._lock:
                if self._closed:
                    raise StoreClosed("this worker speaks with no other one any more")
                running = self._running
                if running is not None and self._loop is not None and not self._loop.is_closed():
                    return running
                starting = self._starting
                if starting is None:
                    mine = self._starting = Outcome()
                    self._running = None
                    break
            await starting
        try:
            return await self._started(running)
        finally:
            with self._lock:
                self._starting = None
            mine.set_result(None)

    def serve(self, kind: str, handler: Handler) -> None:
        """Answer channels of a kind; another handler for the same kind takes its place."""
        with self._lock:
            self._handlers[kind] = handler
            if self._running is not None:
                self._tell(self._running)

    async def close(self) -> None:
        """Speak with nobody any more; from any loop."""
        with self._lock:
            self._closed = True
            running, self._running = self._running, None
            starting = self._starting
        if starting is not None:
            await starting
        if running is not None:
            await running.close()

    # -- inside

    async def _started(self, before: Switchboard | None) -> Switchboard:
        if before is not None:
            await before.close()
        made = Switchboard(self._worker, *self._pipes())
        with self._lock:
            self._known = set()
            self._tell(made)
        try:
            await made.start()
            with self._lock:
                if self._closed:
                    raise StoreClosed("this worker speaks with no other one any more")
                self._running, self._loop = made, asyncio.get_running_loop()
                self._tell(made)
        except BaseException:
            await asyncio.shield(made.close())
            raise
        return made

    def _tell(self, switchboard: Switchboard) -> None:
        """Let it serve what it does not know yet; with the lock held."""
        for kind in self._handlers.keys() - self._known:
            self._known.add(kind)
            switchboard.serve(kind, partial(self._handle, kind))

    async def _handle(self, kind: str, head: bytes, channel: Channel) -> None:
        await self._handlers[kind](head, channel)
