"""One WebSocket of a client: how it opens, what comes, and why it closed."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from tertulia.client.unknown import unknown
from tertulia.errors import (
    ConnectionDenied,
    ConnectionEnded,
    ConnectionLost,
    ConnectionTaken,
    InvalidFrame,
    InvalidInput,
    LiveError,
    MissingExtra,
)
from tertulia.wire.events import AgentErrorEvent, AgentReady, LiveEvent, SystemInit
from tertulia.wire.frames import decode, encode

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

FRAME_LIMIT = 16 * 1024 * 1024
"""Bytes of a frame that a server may send."""
OPEN_TIMEOUT = 15.0
"""Seconds until a connection that is being opened is given up."""
EARLY_EVENTS = 100
"""How many events may come before `agent.ready`; more are no session."""

NORMAL, GOING_AWAY = 1000, 1001
_TOO_LARGE, _INVALID, _DENIED, _TAKEN = 1009, 4400, (4401, 4403), 4409
_LATER = (408, 425, 429)


class Ending(msgspec.Struct, frozen=True):
    """Why a connection is over; `code` is 1006 where it broke off without a word."""

    code: int
    reason: str = ""

    def error(self) -> LiveError | None:
        """The error that it means for good; None where it is worth to come back."""
        told = f": {self.reason}" if self.reason else ""
        if self.code == NORMAL:
            return ConnectionEnded(f"the server ended the conversation{told}", code=NORMAL)
        if self.code in _DENIED:
            return ConnectionDenied(f"the server does not let this client in{told}", code=self.code)
        if self.code == _TAKEN:
            return ConnectionTaken(f"a newer connection has this session now{told}", code=self.code)
        if self.code == _TOO_LARGE:
            return LiveError(f"the server refused a frame as too large{told}", code=self.code)
        if self.code == _INVALID:
            return LiveError(f"the server does not take the first frame{told}", code=self.code)
        return None

    def __str__(self) -> str:
        return f"it closed with {self.code}" + (f" ({self.reason})" if self.reason else "")


class Link:
    """An open connection, after `agent.ready`."""

    def __init__(self, socket: ClientConnection, ready: AgentReady, early: list[LiveEvent]) -> None:
        self.ready = ready
        self.early = early
        """What came before `ready`."""
        self._socket = socket

    async def send(self, event: LiveEvent) -> bool:
        """Send an event; False where the connection is gone."""
        from websockets.exceptions import ConnectionClosed

        try:
            await self._socket.send(encode(event))
        except ConnectionClosed:
            return False
        return True

    async def receive(self) -> LiveEvent | Ending:
        """The next event, or the end. Raises LiveError for what is no frame of the protocol."""
        return await _receive(self._socket)

    async def close(self, code: int) -> None:
        """Close it with a code."""
        await self._socket.close(code)

    def abort(self) -> None:
        """Break it off without a word."""
        self._socket.transport.abort()


def check_url(url: str) -> str:
    """A URL that can be connected to. Raises InvalidInput, which never tells its query."""
    parts = urlsplit(url)
    if parts.scheme not in ("ws", "wss") or not parts.hostname:
        raise InvalidInput(
            f"{parts.scheme or 'no scheme'} is not how a live session is reached; "
            "pass a URL like ws://127.0.0.1:8080/ws, or wss://…"
        )
    return url


async def open_link(url: str, first: SystemInit, token: str | None) -> Link:
    """Connect and wait for `agent.ready`.

    Raises ConnectionLost where that may go better later, else another LiveError. Raises
    MissingExtra.
    """
    try:
        from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
    except ImportError:
        raise MissingExtra("server", "websockets") from None
    try:
        async with asyncio.timeout(OPEN_TIMEOUT):
            socket = await _connected(url, token)
            try:
                await socket.send(encode(first))
                return await _ready(socket)
            except BaseException:
                socket.transport.abort()
                raise
    except InvalidStatus as error:
        raise _refused(error.response.status_code) from None
    except TimeoutError:
        raise ConnectionLost(f"the server did not answer within {OPEN_TIMEOUT:g} s") from None
    except (ssl.SSLCertVerificationError, ssl.CertificateError) as error:
        raise ConnectionDenied(f"the server's certificate is not valid: {error}") from None
    except ConnectionClosed as error:
        raise _lost(_ending(error)) from None
    except (OSError, EOFError, InvalidHandshake) as error:
        raise ConnectionLost(f"the server cannot be reached: {error}") from None


async def _connected(url: str, token: str | None) -> ClientConnection:
    from websockets.asyncio.client import connect

    headers = {"Authorization": f"Bearer {token}"} if token else None
    return await connect(
        url,
        additional_headers=headers,
        max_size=FRAME_LIMIT,
        open_timeout=None,
        compression=None,
        close_timeout=5,
    )


async def _ready(socket: ClientConnection) -> Link:
    early: list[LiveEvent] = []
    while len(early) <= EARLY_EVENTS:
        came = await _receive(socket)
        if isinstance(came, AgentReady):
            return Link(socket, came, early)
        if isinstance(came, Ending):
            raise _lost(came, early)
        early.append(came)
    raise LiveError("the server sends events but no agent.ready; is it a live session?")


def _lost(ending: Ending, early: list[LiveEvent] | None = None) -> LiveError:
    """What an end before `agent.ready` means, with what the server said of it before."""
    said = [event.message for event in early or () if isinstance(event, AgentErrorEvent)]
    if said and not ending.reason:
        ending = Ending(ending.code, said[-1])
    return ending.error() or ConnectionLost(
        f"the server did not open the session: {ending}", code=ending.code
    )


def _refused(status: int) -> LiveError:
    if status in (401, 403):
        return ConnectionDenied(f"the server does not let this client in: HTTP {status}")
    if status >= 500 or status in _LATER:
        return ConnectionLost(f"the server answered with HTTP {status}")
    return LiveError(f"there is no live session at this URL: HTTP {status}")


async def _receive(socket: ClientConnection) -> LiveEvent | Ending:
    from websockets.exceptions import ConnectionClosed

    try:
        data = await socket.recv()
    except ConnectionClosed as error:
        return _ending(error)
    try:
        return decode(data, FRAME_LIMIT)
    except InvalidFrame as error:
        if error.code not in ("unknown_type", "invalid_field"):
            raise LiveError(f"the server does not speak this protocol: {error}") from None
        return unknown(data)


def _ending(error: Any) -> Ending:
    received = error.rcvd
    return Ending(received.code, received.reason) if received is not None else Ending(1006)
