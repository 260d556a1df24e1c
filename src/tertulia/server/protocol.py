"""uvicorn's WebSocket protocol, for clients that do not read what they are sent."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

GRACE = 5.0
"""Seconds that a connection has to end by itself once its application is done with it."""


class LiveProtocol(WebSocketsSansIOProtocol):
    """Ends a connection for sure: a client that never reads cannot keep one open."""

    _abort_timer: asyncio.TimerHandle | None = None

    async def run_asgi(self) -> None:
        """Run the application; then the connection ends, by force if it must."""
        await super().run_asgi()
        if not self.disconnected:
            self._abort_timer = self.loop.call_later(GRACE, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        if self._abort_timer is not None:
            self._abort_timer.cancel()
        super().connection_lost(exc)
