"""One WebSocket of a live session, as an ASGI application."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tertulia.errors import (
    AgentError,
    InvalidFrame,
    InvalidInput,
    SessionError,
    Unauthorized,
)
from tertulia.live import link as links
from tertulia.live.link import Link
from tertulia.live.session import AgentSession
from tertulia.runtime import Runtime
from tertulia.server import carrying
from tertulia.server.asgi import (
    Message,
    Receive,
    Scope,
    Send,
    frame_of,
    send_close,
    send_frame,
)
from tertulia.server.auth import Authenticator, token_of
from tertulia.server.frames import Codec, error_event, fault_of
from tertulia.server.handshake import Gone, Refused, reason_of, with_query
from tertulia.server.hub import Hub
from tertulia.server.limits import Limits, Pace
from tertulia.server.protocol import EXTENSION
from tertulia.wire.events import LiveEvent, SystemInit

if TYPE_CHECKING:
    from tertulia.cluster.channels import Channel

_log = logging.getLogger("tertulia.server")

_STAYING = 3_600.0
"""Seconds that a session stays without its client while the server shuts down, which ends it."""
_TOO_MANY_BAD = 1008
_ONLY_BAD = "too many frames that cannot be understood"


class LiveSocket:
    """Serves one connection: who it is, which session it wants, what it says and gets."""

    at_once = True
    """Whether events may be written without the writer: not where their frames have an order."""

    def __init__(  # noqa: PLR0913 its settings, all by name
        self,
        hub: Hub,
        runtime: Runtime,
        codec: Codec,
        *,
        authenticator: Authenticator | None,
        limits: Limits,
        user_of: Callable[[SystemInit], str | None] | None = None,
        once: bool = False,
        carried: bool = False,
    ) -> None:
        self._hub = hub
        self._runtime = runtime
        self._codec = codec
        self._authenticator = authenticator
        self._limits = limits
        self._user_of = user_of
        self._once = once
        """The connection does not come back: its loss is the end of the session."""
        self._carried = carried
        """Another worker has the connection, and brought it here: it is not carried further."""
        self._early: list[LiveEvent] = []
        self._writes: Callable[[bytes | str], bool] | None = None
        self._after: int | None = None
        self._bad = 0
        self._pace = Pace(limits.rate)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the connection from its handshake to its end."""
        extensions: dict[str, Any] = scope.get("extensions") or {}
        self._writes = extensions.get(EXTENSION) if self.at_once else None
        await receive()  # the connect message
        await send({"type": "websocket.accept"})
        hub = self._hub
        hub.connections += 1
        hub.counts.connections += 1
        try:
            self._check_room()
            link = Link()
            found = await self._opened(scope, receive, send, link)
        except Refused as refused:
            hub.counts.refused += 1
            await send_close(send, refused.code, refused.reason)
        except Gone:
            pass  # the client left before there was a session
        else:
            if isinstance(found, AgentSession):
                await self._serve(found, link, receive, send)
            else:
                hub.counts.carried += 1
                await carrying.carry(found, receive, send)
        finally:
            hub.connections -= 1

    # -- the handshake

    def _check_room(self) -> None:
        if self._hub.stopping:
            raise Refused(links.RESTARTING, "the server restarts: come back")
        if self._hub.lapsed:
            raise Refused(links.RESTARTING, "the server has lost its store: come back")
        if self._hub.connections > self._limits.connections:
            raise Refused(links.TOO_SLOW, "too many connections: come back later")

    async def _opened(
        self, scope: Scope, receive: Receive, send: Send, link: Link
    ) -> AgentSession | Channel:
        """The session that the client wants, or the way to it. Raises Refused."""
        token = token_of(scope["headers"], scope["query_string"])
        user, known = None, self._authenticator is None
        if not known and token is not None:
            user, known = self._who(token), True
        try:
            async with asyncio.timeout(self._limits.init_in):
                init = await self._first(receive, send)
        except TimeoutError:
            raise Refused(links.NO_INIT, "no system.init came in time") from None
        if not known:
            user = self._who(init.token)
        if self._user_of is not None:
            user = self._user_of(init)
        try:
            asked = with_query(init, scope["query_string"])
            self._after = asked.after
            return await self._entered(asked, link, user)
        except InvalidInput as error:
            raise Refused(links.INVALID, str(error)) from error
        except SessionError as error:
            raise Refused(links.NOT_ALLOWED, reason_of(error)) from error
        except AgentError as error:
            _log.error("a live session could not be opened", exc_info=error)
            raise Refused(
                links.FAILED, "the session could not be opened: come back later"
            ) from error

    async def _entered(
        self, asked: SystemInit, link: Link, user: str | None
    ) -> AgentSession | Channel:
        """The session here, or a channel to the worker where it is."""

        async def enter() -> AgentSession:
            return await self._hub.enter(
                self._runtime, asked, link, user_id=user, by_force=self._once
            )

        cluster = None if self._carried else self._runtime.cluster
        first = self._codec.encode(asked) or b""
        return await carrying.find(enter, cluster, carrying.packed_head(user, first))

    def _who(self, token: str | None) -> str | None:
        if self._authenticator is None:
            raise Refused(links.FAILED, "there is no authentication")
        try:
            return self._authenticator.authenticate(token).user
        except Unauthorized as error:
            raise Refused(links.NOT_AUTHENTICATED, str(error)) from error

    async def _first(self, receive: Receive, send: Send) -> SystemInit:
        """The first frame; what is not one is answered, and the client may try again."""
        while True:
            events = await self._events(await receive(), send)
            if events and isinstance(events[0], SystemInit):
                self._early = events[1:]
                return events[0]
            if events:
                said = f"the first frame is a {events[0].type}; send system.init first"
                await self._refuse(InvalidFrame(said, code="wrong_first_frame"), send)

    # -- the session

    async def _serve(self, session: AgentSession, link: Link, receive: Receive, send: Send) -> None:
        link.direct = self._direct()
        loop = asyncio.get_running_loop()
        writer = loop.create_task(self._write(session, link, send))
        attaching = None
        if session.presence.link is not link:
            attaching = loop.create_task(self._attach(session, link))
        reason, for_good = "lost", self._once
        try:
            for event in self._early:
                await session.receive(event)
            reason, for_good = await self._read(session, receive, send, link)
        except asyncio.CancelledError:
            reason = "the server shuts down"
            raise
        finally:
            link.close(links.NORMAL, "the connection is gone")
            writer.cancel()
            seconds = _STAYING if self._hub.stopping else None
            session.detach(link, reason, for_good=for_good or self._once, seconds=seconds)
            tasks = [writer] if attaching is None else [writer, attaching]
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait(tasks, timeout=self._limits.close_in)

    async def _attach(self, session: AgentSession, link: Link) -> None:
        """Give a client that came back what it missed, beside the reader and the writer."""
        try:
            await session.attach(link, self._after, again=True)
        except AgentError as error:
            _log.error("a client could not come back to its session", exc_info=error)

    async def _read(
        self, session: AgentSession, receive: Receive, send: Send, link: Link
    ) -> tuple[str, bool]:
        """Take the client's frames until it leaves: why it left, and whether for good."""
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                code = message.get("code", 1005)
                return f"closed with {code}", code == links.NORMAL and link.closed is None
            await self._pace.keep()
            try:
                events = self._codec.decode(frame_of(message))
            except InvalidFrame as error:
                await self._bad_frame(error, session, link)
                continue
            for event in events:
                wrong = fault_of(event)
                if wrong is None:
                    self._bad = 0
                    await session.receive(event)
                else:
                    await self._bad_frame(wrong, session, link)

    async def _bad_frame(self, error: InvalidFrame, session: AgentSession, link: Link) -> None:
        """Tell the client what was wrong; who sends nothing else is closed."""
        told = error_event(error)
        session.stamp(told, "out")
        link.push(told)
        if self._too_many_bad():
            link.close(_TOO_MANY_BAD, _ONLY_BAD)

    def _too_many_bad(self) -> bool:
        """Count a frame that cannot be understood; whether it was one too many."""
        self._hub.counts.bad_frames += 1
        self._bad += 1
        return self._bad >= self._limits.bad_frames

    async def _write(self, session: AgentSession, link: Link, send: Send) -> None:
        """Write what the link has, and close the connection when it is closed."""
        codec = self._codec
        try:
            while True:
                event = link.next()
                if event is None:
                    if not await link.wait():
                        break
                    continue
                try:
                    data = codec.encode(event)
                except InvalidFrame as error:
                    await session.report(str(error), payload={"code": error.code})
                    continue
                link.writing = True
                if data is not None:
                    await send_frame(send, data)
                link.writing = False
            code, reason = link.closed or (links.NORMAL, "")
            if code == links.TOO_SLOW:
                self._hub.counts.too_slow += 1
            async with asyncio.timeout(self._limits.close_in):
                await send_close(send, code, reason)
        except OSError:
            link.close(links.NORMAL, "the connection is gone")  # the reader is told so too

    def _direct(self) -> Callable[[LiveEvent], bool] | None:
        """What writes an event without the writer, where the server can do that."""
        write: Callable[[bytes | str], bool] | None = self._writes
        if write is None:
            return None
        codec = self._codec

        def direct(event: LiveEvent) -> bool:
            try:
                data = codec.encode(event)
            except InvalidFrame:
                return False  # the writer tells of it
            return data is None or write(data)

        return direct

    # -- frames before there is a session

    async def _events(self, message: Message, send: Send) -> list[LiveEvent]:
        if message["type"] == "websocket.disconnect":
            raise Gone
        try:
            return self._codec.decode(frame_of(message))
        except InvalidFrame as error:
            await self._refuse(error, send)
            return []

    async def _refuse(self, error: InvalidFrame, send: Send) -> None:
        if self._too_many_bad():
            raise Refused(_TOO_MANY_BAD, _ONLY_BAD)
        data = self._codec.refuse(error)
        if data is not None:
            await send_frame(send, data)
