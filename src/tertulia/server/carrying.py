"""A connection whose live session is at another worker: it is carried there over a channel.

The frames of the client go on as they are. Who it is was found out where it connected: its token
is not sent on.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import msgspec

from tertulia.cluster.parts import Whole
from tertulia.errors import WorkerLost
from tertulia.live import link as links
from tertulia.live.session import AgentSession
from tertulia.server.asgi import Message, Receive, Send, frame_of, framed, send_close
from tertulia.server.handshake import Refused
from tertulia.server.seats import Elsewhere

if TYPE_CHECKING:
    from tertulia.cluster import Cluster
    from tertulia.cluster.channels import Channel

KIND = "live"
"""The kind of the channels."""
LOST = "the worker of this session was lost: come back"
_AGAIN = 0.1
"""Seconds until a worker that was not reached is looked for again."""
_TEXT, _BINARY, _CLOSE = b"T", b"B", b"C"
_CODE = struct.Struct(">H")
_ABNORMAL = 1006


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """What the other worker is told of a connection."""

    user: str | None
    """Who it is; None where nobody has to say so."""
    first: bytes
    """Its `system.init`, without its token."""
    text: bool
    """Whether its frames are text."""


def packed_head(user: str | None, first: bytes | str) -> bytes:
    """The head of a channel, for a client and its first frame."""
    text = isinstance(first, str)
    raw = first.encode() if isinstance(first, str) else first
    return msgspec.msgpack.encode(Head(user=user, first=raw, text=text))


def head_of(data: bytes) -> Head:
    """What a head says. Raises msgspec.ValidationError."""
    return msgspec.msgpack.decode(data, type=Head)


async def find(
    enter: Callable[[], Awaitable[AgentSession]], cluster: Cluster | None, head: bytes
) -> AgentSession | Channel:
    """The session, where it is here or comes here, else a channel to the worker that has it.

    A worker that cannot be reached is waited for until its sessions are free. Raises Refused where
    they are not then, and what `enter` raises.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + (0.0 if cluster is None else cluster.lease + 1.0)
    while True:
        try:
            return await enter()
        except Elsewhere as found:
            worker = found.worker
        if cluster is None:
            raise Refused(links.RESTARTING, LOST)
        try:
            return await cluster.open(worker, KIND, head)
        except WorkerLost as error:
            if loop.time() > until:
                raise Refused(links.RESTARTING, LOST) from error
        await asyncio.sleep(_AGAIN)


async def carry(channel: Channel, receive: Receive, send: Send) -> None:
    """Move frames both ways until one side is done; then the client's connection is closed."""
    whole = Whole(channel)
    up = asyncio.create_task(_up(receive, whole), name="tertulia carried connection")
    try:
        code, reason = await _down(whole, send)
        await send_close(send, code, reason)
    except OSError:
        pass  # the client is gone, and `_up` has said so
    finally:
        up.cancel()
        await asyncio.gather(up, return_exceptions=True)
        await channel.close()


def ends(head: Head, channel: Channel) -> tuple[Receive, Send]:
    """A channel as the connection of a client, as ASGI has one."""
    whole = Whole(channel)
    first = head.first.decode() if head.text else head.first
    waiting: list[Message] = [framed("websocket.receive", first), {"type": "websocket.connect"}]

    async def receive() -> Message:
        if waiting:
            return waiting.pop()
        try:
            data = await whole.receive()
        except WorkerLost:
            data = None
        gone: Message = {"type": "websocket.disconnect", "code": _ABNORMAL}
        return gone if data is None else _unpacked(data)

    async def send(message: Message) -> None:
        if message["type"] == "websocket.accept":
            return
        try:
            await whole.send(_packed(message))
        except WorkerLost as error:
            raise ConnectionResetError(str(error)) from error

    return receive, send


async def _up(receive: Receive, whole: Whole) -> None:
    """Hand the client's frames on, until it leaves."""
    try:
        while True:
            message = await receive()
            await whole.send(_packed(message))
            if message["type"] == "websocket.disconnect":
                await whole.channel.end()
                return
    except WorkerLost:
        return  # whoever reads the channel closes the connection


async def _down(whole: Whole, send: Send) -> tuple[int, str]:
    """Hand on what the other worker sends: the code and the reason with which it ends."""
    while True:
        try:
            data = await whole.receive()
        except WorkerLost:
            data = None
        if data is None:
            return links.RESTARTING, LOST
        if data[:1] == _CLOSE:
            return _closing(data)
        frame = data[1:]
        await send(framed("websocket.send", frame.decode() if data[:1] == _TEXT else frame))


def _packed(message: Message) -> bytes:
    """A message of ASGI as it goes over a channel."""
    if message["type"] in ("websocket.receive", "websocket.send"):
        data = frame_of(message)
        return _TEXT + data.encode() if isinstance(data, str) else _BINARY + data
    code, reason = message.get("code") or 1005, message.get("reason") or ""
    return _CLOSE + _CODE.pack(code) + reason.encode()


def _unpacked(data: bytes) -> Message:
    """What came from the client's side."""
    if data[:1] == _CLOSE:
        code, reason = _closing(data)
        return {"type": "websocket.disconnect", "code": code, "reason": reason}
    frame = data[1:]
    return framed("websocket.receive", frame.decode() if data[:1] == _TEXT else frame)


def _closing(data: bytes) -> tuple[int, str]:
    return _CODE.unpack_from(data, 1)[0], data[1 + _CODE.size :].decode()
