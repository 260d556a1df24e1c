"""A handler that runs for a channel, on the loop of the switchboard."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from tertulia.cluster.channels import Channel
from tertulia.errors import WorkerLost

Handler = Callable[[bytes, Channel], Awaitable[None]]
"""What serves a kind of channel: it gets the head and the channel."""

CLOSING = "the worker is closing"

_log = logging.getLogger("tertulia.cluster")


class Owner(Protocol):
    """Who keeps count of the handlers that run."""

    def entered(self, call: Call) -> bool:
        """A handler is about to begin; False where it must not."""
        ...

    def left(self, call: Call, *, failed: bool) -> None:
        """A handler has ended."""
        ...


class Call:
    """A handler that runs for a channel."""

    def __init__(
        self,
        owner: Owner,
        loop: asyncio.AbstractEventLoop,
        handler: Handler,
        kind: str,
        channel: Channel,
    ) -> None:
        self._owner = owner
        self._loop = loop
        self._handler = handler
        self._kind = kind
        self._channel = channel
        self._task: asyncio.Task[None] | None = None

    def start(self, head: bytes) -> None:
        """Begin, on the loop."""
        if not self._owner.entered(self):
            return
        self._task = self._loop.create_task(self._run(head))
        self._task.add_done_callback(self._done)

    def cancel_soon(self) -> None:
        """End it, from any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _run(self, head: bytes) -> None:
        await self._handler(head, self._channel)

    def _done(self, task: asyncio.Task[None]) -> None:
        """Tell the other side how it ended."""
        error = None if task.cancelled() else task.exception()
        if task.cancelled():
            self._channel.shut(CLOSING, refused=True)
        elif error is None:
            self._channel.shut("the handler is done")
        else:
            if not isinstance(error, WorkerLost):
                _log.error("the handler of a channel %r failed", self._kind, exc_info=error)
            self._channel.shut(type(error).__name__, refused=True)
        self._owner.left(self, failed=error is not None)
