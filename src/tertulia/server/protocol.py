"""uvicorn's WebSocket protocol, for many connections and for clients that do not read."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import InvalidState

GRACE = 5.0
"""Seconds that a connection has to end by itself once its application is done with it."""
EXTENSION = "tertulia.write"
"""Under this name the scope has a function that writes a frame at once, if the client keeps up."""


class LiveProtocol(WebSocketsSansIOProtocol):
    """Ends a connection for sure, so that a client that never reads cannot keep one open; and
    lets the application write a frame without waiting, where nothing waits to be written."""

    _abort_timer: asyncio.TimerHandle | None = None

    async def run_asgi(self) -> None:
        """Run the application; then the connection ends, by force if it must."""
        cast("dict[str, Any]", self.scope.get("extensions"))[EXTENSION] = self.write
        await super().run_asgi()
        if not self.disconnected:
            self._abort_timer = self.loop.call_later(GRACE, self.transport.abort)

    def write(self, data: bytes | str) -> bool:
        """Write a frame, if the client keeps up with what it is sent; False where it does not."""
        if not self.writable.is_set() or self.disconnected or self.close_sent:
            return False
        try:
            if isinstance(data, str):
                self.conn.send_text(data.encode())
            else:
                self.conn.send_binary(data)
        except InvalidState:
            return False  # the client is closing
        self.transport.write(b"".join(self.conn.data_to_send()))
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        if self._abort_timer is not None:
            self._abort_timer.cancel()
        super().connection_lost(exc)
