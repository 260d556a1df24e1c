"""Between a client and a server: hands on frames, and breaks the connection off after some."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

Side = ServerConnection | ClientConnection


class Frames:
    """Counts what the server says on the first connection, and cuts that after so many frames."""

    def __init__(self, to: str, cut_after: int) -> None:
        self.came = 0
        self.cut = False
        self._to = to
        self._cut_after = cut_after

    async def carry(self, guest: ServerConnection) -> None:
        """One connection of a client."""
        counts = not self.came
        async with connect(self._to, compression=None) as far:
            up = asyncio.create_task(_all(guest, far))
            with suppress(ConnectionClosed):
                async for frame in far:
                    if counts and self.came == self._cut_after:
                        break
                    self.came += counts
                    await guest.send(frame)
            if counts and self.came == self._cut_after:
                self.cut = True
                far.transport.abort()
                guest.transport.abort()
            await guest.close(far.close_code or 1001)
            await asyncio.gather(up, return_exceptions=True)


async def _all(source: Side, target: Side) -> None:
    with suppress(ConnectionClosed):
        async for frame in source:
            await target.send(frame)
    await target.close(source.close_code or 1001)


@asynccontextmanager
async def counting(to: str, cut_after: int) -> AsyncGenerator[tuple[str, Frames]]:
    """A way to a server, and its address."""
    frames = Frames(to, cut_after)
    server: Server
    async with serve(frames.carry, "127.0.0.1", 0, compression=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        yield f"ws://127.0.0.1:{port}/ws", frames
