"""One phone call: the carrier's WebSocket on one side, a live session on the other.

A call cannot come back: when its connection is gone, its session ends. What was said stays in the
log of the conversation, which a later connection for the same call goes on with.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, MutableMapping
from typing import Any

from tertulia.errors import InvalidFrame
from tertulia.live.link import REPLACED, Link
from tertulia.live.session import AgentSession
from tertulia.runtime import Runtime
from tertulia.server.asgi import Receive, Scope, Send
from tertulia.server.hub import Hub
from tertulia.server.limits import Limits
from tertulia.server.socket import LiveSocket
from tertulia.wire.events import AgentErrorEvent, AgentSpeak, EndCall, LiveEvent, SystemInit
from tertulia.wire.relay import BY_CARRIER, Relay

_log = logging.getLogger("tertulia.server")


class RelayCodec:
    """The carrier's frames."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self.reported: list[AgentErrorEvent] = []
        """Errors of the carrier: what a client says of the agent's side is not logged."""

    def decode(self, data: bytes | str) -> list[LiveEvent]:
        """The events in a frame; errors are put into `reported`. Raises InvalidFrame."""
        events = self._relay.receive(data)
        self.reported += [event for event in events if isinstance(event, AgentErrorEvent)]
        return [event for event in events if not isinstance(event, AgentErrorEvent)]

    def encode(self, event: LiveEvent) -> str | None:
        """The frame of an event; None where there is none. Raises InvalidFrame."""
        return self._relay.send(event)

    def refuse(self, error: InvalidFrame) -> None:
        """A carrier takes no frame for this: it is logged."""
        _log.warning("a frame of a phone call was ignored: %s", error)


class CallSocket(LiveSocket):
    """Serves one call, from its first frame to its end."""

    at_once = False

    def __init__(
        self,
        hub: Hub,
        runtime: Runtime,
        *,
        limits: Limits,
        greeting: str | None = None,
        user_of: Callable[[SystemInit], str | None] | None = None,
    ) -> None:
        self._relay = Relay(limits.frame)
        self._carrier = RelayCodec(self._relay)
        super().__init__(
            hub,
            runtime,
            self._carrier,
            authenticator=None,
            limits=limits,
            user_of=user_of,
            once=True,
        )
        self._greeting = greeting
        self._session: AgentSession | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the call; before its connection is closed, the carrier is told to go on."""

        async def sending(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "websocket.close" and self._carrier_waits(message["code"]):
                text = self._relay.send(EndCall())
                if text is not None:
                    await send({"type": "websocket.send", "text": text})
            await send(message)
            if self._relay.ended and self._session is not None:
                self._session.finish("the call was handed on")

        await super().__call__(scope, receive, sending)

    def _carrier_waits(self, code: object) -> bool:
        """Whether there is a call, and no newer connection for it."""
        return self._relay.call is not None and code != REPLACED

    async def _serve(self, session: AgentSession, link: Link, receive: Receive, send: Send) -> None:
        self._session = session
        if self._greeting:  # the carrier says it by itself; it is the first message
            spoken = AgentSpeak(text=self._greeting, metadata=dict(BY_CARRIER))
            self._relay.send(spoken)
            await session.send_event(spoken)
            await session.sink.idle()

        async def receiving() -> MutableMapping[str, Any]:
            reported, self._carrier.reported = self._carrier.reported, []
            for error in reported:
                await session.send_event(error)
            return await receive()

        await super()._serve(session, link, receiving, send)

    async def _bad_frame(self, error: InvalidFrame, session: AgentSession, link: Link) -> None:
        await super()._bad_frame(error, session, link)
        await session.report(str(error), payload={"code": error.code})
