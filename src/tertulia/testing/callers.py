"""A phone call from the carrier's side, to test what answers it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import msgspec

from tertulia.errors import (
    ConnectionDenied,
    ConnectionEnded,
    ConnectionLost,
    InvalidFrame,
    MissingExtra,
)
from tertulia.wire.carrier import AppFrame, EndFrame, ErrorFrame, TextFrame, decode_app, encode
from tertulia.wire.voice import signature

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

PATIENCE = 10.0
"""Seconds that a caller waits for the next frame."""
MOST_REFUSED = 10
"""Frames in turn that a carrier refuses before it hangs up."""


class SimulatedCaller:
    """Somebody who calls, and their carrier: speaks ConversationRelay over a real WebSocket.

    ``async with SimulatedCaller("ws://127.0.0.1:8080/voice/relay") as caller:`` then
    ``await caller.says("Hello")`` and ``await caller.hears()``. As a carrier does, it answers a
    frame that does not validate with an ``error`` frame, hangs up after ten in turn, and closes
    the connection when it is told to end.

    `auth_token` signs the handshake, over `signed_url` where the application knows its relay by
    another URL. `setup` changes fields of the first frame, under the carrier's names; None leaves
    one out. Needs the extra ``server``.
    """

    def __init__(
        self,
        url: str,
        *,
        auth_token: str | None = None,
        signed_url: str | None = None,
        setup: Mapping[str, Any] | None = None,
    ) -> None:
        self.url = url
        given = {**_first_frame(), **(setup or {})}
        self.setup = {name: value for name, value in given.items() if value is not None}
        self.frames: list[AppFrame] = []
        """All frames of the application that were good, oldest first."""
        self.refused: list[str] = []
        """What was wrong with the others."""
        self.ended: EndFrame | None = None
        """The frame with which the application ended its part of the call."""
        self.close_code: int | None = None
        """With which the connection was closed, once it is."""
        self._headers: dict[str, str] = {}
        if auth_token is not None:
            self._headers["X-Twilio-Signature"] = signature(auth_token, signed_url or url)
        self._socket: ClientConnection | None = None
        self._in_turn = 0

    @property
    def call_id(self) -> str:
        """The carrier's id of the call."""
        return self.setup["callSid"]

    @property
    def session_id(self) -> str:
        """The id of the session that the call has."""
        return f"call-{self.call_id}"

    async def __aenter__(self) -> Self:
        await self.connect()
        await self.sends(self.setup)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.hangs_up()

    # -- the call

    async def connect(self) -> None:
        """Open the WebSocket, and send nothing yet.

        Raises ConnectionDenied where the handshake is refused, with its HTTP status as `code`,
        and ConnectionLost where nobody answers.
        """
        try:
            from websockets.asyncio.client import connect
            from websockets.exceptions import InvalidHandshake, InvalidStatus
        except ImportError:
            raise MissingExtra("server", "websockets") from None
        try:
            self._socket = await connect(
                self.url, additional_headers=self._headers, open_timeout=PATIENCE, proxy=None
            )
        except InvalidStatus as error:
            status = error.response.status_code
            raise ConnectionDenied(
                f"{self.url} answers the handshake with {status}", code=status
            ) from None
        except (OSError, InvalidHandshake) as error:
            raise ConnectionLost(f"{self.url} does not answer: {error}") from error

    async def hangs_up(self) -> None:
        """End the call as a caller does."""
        if self._socket is not None:
            await self._socket.close()
            self.close_code = self._socket.close_code

    async def drops(self) -> None:
        """Lose the connection without a word."""
        self._open().transport.abort()
        await self._open().wait_closed()

    # -- what the caller does

    async def says(
        self, text: str, *, parts: Sequence[str] = (), lang: str | None = "en-US"
    ) -> None:
        """Say something; `parts` is what the carrier understands of it before the end."""
        for part in parts:
            await self.sends(_prompt(part, lang, last=False))
        await self.sends(_prompt(text, lang, last=True))

    async def presses(self, digits: str) -> None:
        """Press keys, one after another."""
        for digit in digits:
            await self.sends({"type": "dtmf", "digit": digit})

    async def interrupts(self, heard: str, after_ms: int = 500) -> None:
        """Speak over the agent, of whom one has heard this much."""
        await self.sends(
            {
                "type": "interrupt",
                "utteranceUntilInterrupt": heard,
                "durationUntilInterruptMs": after_ms,
            }
        )

    async def sends(self, frame: Mapping[str, Any] | str | bytes) -> None:
        """Send a frame as it is, good or bad. Raises ConnectionEnded when there is no call."""
        from websockets.exceptions import ConnectionClosed

        data = frame if isinstance(frame, str | bytes) else msgspec.json.encode(frame).decode()
        try:
            await self._open().send(data)
        except ConnectionClosed as error:
            raise self._closed() from error

    # -- what the caller gets

    async def frame(self, within: float = PATIENCE) -> AppFrame:
        """The next good frame of the application.

        Raises ConnectionEnded when the call is over, and TimeoutError after `within` seconds.
        """
        try:
            async with asyncio.timeout(within):
                return await self._good_frame()
        except TimeoutError:
            came = f"the {len(self.frames)} before are in frames" if self.frames else "none came"
            raise TimeoutError(
                f"waited {within:g} s for the next frame of the application; {came}"
            ) from None

    async def hears(self, within: float = PATIENCE) -> str:
        """The next text that the agent says, to its end; other frames wait in `frames`.

        An answer that was interrupted has no end: what came of it before the interruption, and
        was not read yet, is the beginning of what is heard next. Raises as `frame`.
        """
        heard: list[str] = []
        while True:
            try:
                frame = await self.frame(within)
            except TimeoutError as error:
                said = f"the agent said {''.join(heard)!r}, and no end of it came" if heard else ""
                raise TimeoutError(said or f"the agent said nothing: {error}") from error
            if isinstance(frame, TextFrame):
                heard.append(frame.token)
                if frame.last:
                    return "".join(heard)

    async def gone(self, within: float = PATIENCE) -> list[AppFrame]:
        """Wait until the application has ended the call; the frames until then."""
        before = len(self.frames)
        try:
            while True:
                await self.frame(within)
        except ConnectionEnded:
            return self.frames[before:]

    # -- inside

    async def _good_frame(self) -> AppFrame:
        while True:
            data = await self._received()
            try:
                frame = decode_app(data)
            except InvalidFrame as error:
                await self._refuse(str(error))
                continue
            self._in_turn = 0
            self.frames.append(frame)
            if isinstance(frame, EndFrame):
                self.ended = frame
                await self.hangs_up()
            return frame

    def _open(self) -> ClientConnection:
        if self._socket is None:
            raise ConnectionEnded("there is no call yet; use: async with SimulatedCaller(…)")
        return self._socket

    def _closed(self) -> ConnectionEnded:
        self.close_code = self._open().close_code
        return ConnectionEnded("the call is over", code=self.close_code)

    async def _received(self) -> str | bytes:
        from websockets.exceptions import ConnectionClosed

        try:
            return await self._open().recv()
        except ConnectionClosed as error:
            raise self._closed() from error

    async def _refuse(self, wrong: str) -> None:
        self.refused.append(wrong)
        self._in_turn += 1
        await self.sends(encode(ErrorFrame(description=f"Invalid message: {wrong}")))
        if self._in_turn >= MOST_REFUSED:
            await self.hangs_up()
            raise self._closed()


def _first_frame() -> dict[str, Any]:
    number = uuid.uuid4().hex
    return {
        "type": "setup",
        "sessionId": f"VX{number}",
        "accountSid": f"AC{1:032x}",
        "callSid": f"CA{number}",
        "from": "+15550100",
        "to": "+15550101",
        "direction": "inbound",
        "callType": "PSTN",
        "callerName": "",
        "callStatus": "RINGING",
        "customParameters": {},
    }


def _prompt(text: str, lang: str | None, *, last: bool) -> dict[str, Any]:
    return {"type": "prompt", "voicePrompt": text, "lang": lang, "last": last}
