"""The frames of one connection: what they say, and what is wrong with them."""

from __future__ import annotations

from typing import Protocol

from tertulia.errors import InvalidFrame
from tertulia.wire.events import AgentErrorEvent, LiveEvent, SystemInit, fill
from tertulia.wire.frames import MAX_FRAME, decode, encode


class Codec(Protocol):
    """How a client's frames become events, and events its frames."""

    def decode(self, data: bytes | str) -> list[LiveEvent]:
        """The events in a frame. Raises InvalidFrame."""
        ...

    def encode(self, event: LiveEvent) -> bytes | str | None:
        """The frame of an event; None where there is none. Raises InvalidFrame."""
        ...

    def refuse(self, error: InvalidFrame) -> bytes | str | None:
        """The frame that says what is wrong with one of the client's."""
        ...


class LiveCodec:
    """Our own frames: text or binary, as the client's first one."""

    def __init__(self, limit: int = MAX_FRAME) -> None:
        self._limit = limit
        self._as_text: bool | None = None

    def decode(self, data: bytes | str) -> list[LiveEvent]:
        """The event in a frame. Raises InvalidFrame."""
        if self._as_text is None:
            self._as_text = isinstance(data, str)
        return [decode(data, self._limit)]

    def encode(self, event: LiveEvent) -> bytes | str:
        """The frame of an event. Raises InvalidFrame."""
        data = encode(event)
        return data.decode() if self._as_text else data

    def refuse(self, error: InvalidFrame) -> bytes | str:
        """An `agent.error`."""
        told = error_event(error)
        fill(told, "direction", "out")
        return self.encode(told)


def error_event(error: InvalidFrame) -> AgentErrorEvent:
    """What a client is told of a frame that is wrong."""
    return AgentErrorEvent(message=str(error), payload={"code": error.code})


def fault_of(event: LiveEvent) -> InvalidFrame | None:
    """What is wrong with an event for a session that is open."""
    if isinstance(event, SystemInit):
        said = "the session is open already; system.init is the first frame only"
        return InvalidFrame(said, code="already_open")
    if event.id is not None and not 0 < len(event.id) <= 200:
        said = "the id of an event is text of 1 to 200 characters"
        return InvalidFrame(said, code="invalid_field")
    return None
