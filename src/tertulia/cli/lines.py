"""Lines from standard input, one at a time, while an event loop goes on with other things."""

from __future__ import annotations

import asyncio
import os

from tertulia.errors import InvalidInput

LONGEST = 1024 * 1024
"""Bytes of one line."""
_PIECE = 65_536


class Lines:
    """The lines of a terminal, a pipe or a file. It reads only when somebody asks."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._read = bytearray()
        self._over = False

    async def next(self) -> str | None:
        """The next line that is not blank, None at the end. Raises InvalidInput for a huge one."""
        while (line := await self._line()) is not None:
            text = line.decode("utf-8", "replace").strip()
            if text:
                return text
        return None

    async def _line(self) -> bytes | None:
        while (end := self._read.find(b"\n")) < 0 and not self._over:
            if len(self._read) > LONGEST:
                raise InvalidInput(f"a line has more than {LONGEST:,} bytes")
            await self._more()
        end = end if end >= 0 else len(self._read)
        line = bytes(self._read[:end])
        del self._read[: end + 1]
        return line if line or not self._over or self._read else None

    async def _more(self) -> None:
        await self._ready()
        piece = os.read(self._descriptor, _PIECE)
        self._over = not piece
        self._read += piece

    async def _ready(self) -> None:
        """Wait until there is something to read; a file always has something."""
        loop = asyncio.get_running_loop()
        ready = loop.create_future()
        try:
            loop.add_reader(self._descriptor, _settle, ready)
        except PermissionError:
            return
        try:
            await ready
        finally:
            loop.remove_reader(self._descriptor)


def _settle(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
