"""Frames that wait to be written to one connection: bounded, from any thread."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Awaitable, Callable

WAITING_LIMIT = 4 * 1024 * 1024
"""Bytes that may wait to be written to one connection."""


class Outbox:
    """Frames that wait to be written by a task; any thread puts them in."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._frames: deque[bytes] = deque()
        self._size = 0
        self._asleep = False
        self._closed = False
        self._news = asyncio.Event()
        self._over = asyncio.Event()

    def put(self, frame: bytes) -> bool:
        """Have a frame written; False where too much waits."""
        with self._lock:
            if self._closed or self._size >= WAITING_LIMIT:
                return False
            self._frames.append(frame)
            self._size += len(frame)
            wakes, self._asleep = self._asleep, False
        if wakes:
            self._call(self._news.set)
        return True

    def close(self) -> None:
        """Nothing more is put in; what is there is still written."""
        with self._lock:
            self._closed = True
        self._call(self._news.set)
        self._call(self._over.set)

    async def ended(self) -> None:
        """Wait until it is closed."""
        await self._over.wait()

    async def write(self, send: Callable[[bytes], Awaitable[None]]) -> None:
        """Write all that is put in, until it is closed."""
        while True:
            with self._lock:
                frame = self._frames.popleft() if self._frames else None
                self._size -= len(frame or b"")
                self._asleep = frame is None
                if frame is None and self._closed:
                    return
                if frame is None:
                    self._news.clear()
            if frame is None:
                await self._news.wait()
            else:
                await send(frame)

    def _call(self, told: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # its loop is gone, and so is who would write
            self._loop.call_soon_threadsafe(told)
