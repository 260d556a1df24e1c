"""The route at which other workers connect, with the secret that lies in this worker's row."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from tertulia.cluster.frames import FRAME_LIMIT
from tertulia.cluster.http import FROM, PATH, TO, HttpPipe
from tertulia.server.auth import token_of

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

__all__ = ["PATH", "Peers"]

_TOO_LARGE = 1009
_RESPONSE = "websocket.http.response"
"""The extension of ASGI by which a connection is refused with a status."""


class Peers:
    """An ASGI application for the WebSockets of other workers; serve it at `PATH`.

    It wants no token and no origin of a user: those who connect show `pipe.secret`, which is
    compared in constant time. A wrong one is refused with 401, and with 403 who wants another
    worker than this one, as where a new process has the address of one that is gone.
    """

    def __init__(self, pipe: HttpPipe) -> None:
        self._pipe = pipe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection until it is over, as ASGI says."""
        if scope["type"] != "websocket":
            await _not_found(send)
            return
        await receive()  # the connect message
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        peer = _worker(_header(headers, FROM))
        if not self._pipe.admits(token_of(headers, b"")):
            await _refuse(scope, send, 401)
        elif peer is None or not self._pipe.is_for(_header(headers, TO)):
            await _refuse(scope, send, 403)
        else:
            await send({"type": "websocket.accept"})
            await self._serve(peer, receive, send)

    async def _serve(self, peer: bytes, receive: Receive, send: Send) -> None:
        code = 1000

        async def heard() -> bytes | None:
            nonlocal code
            message = await receive()
            if message["type"] == "websocket.disconnect":
                code = 0
                return None
            data: bytes | None = message.get("bytes")
            if data is None:
                data = b""  # text is no frame
            if len(data) > FRAME_LIMIT:
                code = _TOO_LARGE
                return None
            return data

        async def write(data: bytes) -> None:
            await send({"type": "websocket.send", "bytes": data})

        await self._pipe.accept(peer, heard, write)
        if code:
            await send({"type": "websocket.close", "code": code})


async def _refuse(scope: Scope, send: Send, status: int) -> None:
    """Refuse a connection before it is one."""
    if _RESPONSE in (scope.get("extensions") or {}):
        head = [(b"content-length", b"0")]
        await send({"type": "websocket.http.response.start", "status": status, "headers": head})
        await send({"type": "websocket.http.response.body", "body": b""})
    else:
        await send({"type": "websocket.close", "code": 4000 + status})


async def _not_found(send: Send) -> None:
    head = [(b"content-length", b"0")]
    await send({"type": "http.response.start", "status": 404, "headers": head})
    await send({"type": "http.response.body", "body": b""})


def _header(headers: list[tuple[bytes, bytes]], name: str) -> str | None:
    wanted = name.lower().encode()
    return next((value.decode("latin-1") for key, value in headers if key == wanted), None)


def _worker(text: str | None) -> bytes | None:
    """The uid of a worker in hex; None where it is none."""
    try:
        found = bytes.fromhex(text or "")
    except ValueError:
        return None
    return found if len(found) == 16 else None
