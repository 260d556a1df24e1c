"""The words of ASGI about a WebSocket, and how its messages are made."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MOST_REASON = 120
"""Bytes of a reason of a close."""


def frame_of(message: Message) -> bytes | str:
    """What the client sent: text or bytes."""
    data: bytes | str | None = message.get("bytes")
    return message.get("text", "") if data is None else data


def framed(kind: str, data: bytes | str) -> Message:
    """A message with a frame, as it came or as it is sent."""
    return {"type": kind, "text": data} if isinstance(data, str) else {"type": kind, "bytes": data}


async def send_frame(send: Send, data: bytes | str) -> None:
    """Send a frame, as text or binary as it is."""
    await send(framed("websocket.send", data))


async def send_close(send: Send, code: int, reason: str) -> None:
    """Close a WebSocket; a reason that is too long is cut."""
    short = reason.encode()[:MOST_REASON].decode(errors="ignore")
    await send({"type": "websocket.close", "code": code, "reason": short})
