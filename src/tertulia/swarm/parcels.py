"""What workers say to each other about a client: calls, and what is told of them. As bytes.

Both sides run the same code; a call that a newer version makes may name what an older one does
not know, which it says.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from tertulia import errors
from tertulia.agents.response import Response, StreamEvent
from tertulia.approvals import Approval
from tertulia.errors import AgentError, WorkerLost
from tertulia.messages import Message
from tertulia.policies import Verdict
from tertulia.swarm.answer import Answer, Kind, Outgoing

KIND = "client"
"""The kind of channels that carry them."""
Op = Literal["execute", "stream", "resume", "cancel", "emit", "notify", "connect", "released"]


class Call(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is asked of the worker that has the seat of a client."""

    op: Op
    swarm: str
    client_id: str
    request: Message | None = None
    text: str = ""
    options: dict[str, Any] = {}
    inside: bool = False
    """Whether a turn asks, which has a place among those that run at once."""

    @property
    def repeatable(self) -> bool:
        """Whether it does nothing twice when it is made twice."""
        return self.op in {"connect", "cancel"} or bool(self.options.get("idempotency_key"))


class Happened(msgspec.Struct, frozen=True, tag="event"):
    """Something happened in a turn that is streamed."""

    event: StreamEvent


class Delivered(msgspec.Struct, frozen=True, tag="outgoing"):
    """Something went out to whoever is connected."""

    outgoing: Outgoing


class Answered(msgspec.Struct, frozen=True, tag="answer", kw_only=True, omit_defaults=True):
    """The answer, which is the last that is told."""

    text: str
    kind: Kind
    agent: str | None = None
    turn: int | None = None
    verdict: Verdict | None = None
    pending: list[Approval] = []
    emitted: bool = False

    @classmethod
    def of(cls, answer: Answer) -> Answered:
        """An answer, to be sent."""
        return cls(
            text=str(answer),
            kind=answer.kind,
            agent=answer.agent,
            turn=answer.turn,
            verdict=answer.verdict,
            pending=answer.pending,
            emitted=answer.emitted,
        )

    def answer(self) -> Answer:
        """The answer that was sent."""
        return Answer(
            self.text,
            self.kind,
            agent=self.agent,
            turn=self.turn,
            verdict=self.verdict,
            pending=self.pending,
            emitted=self.emitted,
        )


class Cancelled(msgspec.Struct, frozen=True, tag="cancelled"):
    """Whether there was a turn to cancel."""

    stopped: bool


class Raised(msgspec.Struct, frozen=True, tag="error"):
    """What the call raised."""

    kind: str
    text: str
    fields: dict[str, Any]

    @classmethod
    def of(cls, error: Exception) -> Raised:
        """An error, to be sent; of one that is not ours, its kind and text."""
        for kind in type(error).__mro__:
            if getattr(errors, kind.__name__, None) is kind:
                fields = {key: value for key, value in vars(error).items() if _is_plain(value)}
                return cls(kind.__name__, str(error), fields)
        return cls("AgentError", f"{type(error).__name__}: {error}", {})

    def error(self) -> AgentError:
        """The error that was sent."""
        kind: Any = getattr(errors, self.kind, None)
        if not (isinstance(kind, type) and issubclass(kind, AgentError)):
            return AgentError(self.text)
        made = kind.__new__(kind)
        made.args = (self.text,)
        vars(made).update(self.fields)
        return made


class Elsewhere(msgspec.Struct, frozen=True, tag="elsewhere"):
    """The client is not served here any more: ask the store again where it is."""


Told = Happened | Delivered | Answered | Cancelled | Raised | Elsewhere

_encoder = msgspec.msgpack.Encoder()
_calls = msgspec.msgpack.Decoder(Call)
_told: msgspec.msgpack.Decoder[Told] = msgspec.msgpack.Decoder(Told)


def packed(parcel: Call | Told) -> bytes:
    """A call, or what is told of one, as bytes."""
    if isinstance(parcel, Happened):
        parcel = Happened(_portable(parcel.event))
    return _encoder.encode(parcel)


def call_in(data: bytes) -> Call:
    """A call that came. Raises WorkerLost for one that is not understood."""
    try:
        return _calls.decode(data)
    except msgspec.DecodeError as error:
        raise _not_understood(error) from None


def told_in(data: bytes) -> Told:
    """What came of a call. Raises WorkerLost for what is not understood."""
    try:
        return _told.decode(data)
    except msgspec.DecodeError as error:
        raise _not_understood(error) from None


def _not_understood(error: Exception) -> WorkerLost:
    return WorkerLost(f"the other worker speaks another version of this: {error}")


def _portable(event: StreamEvent) -> StreamEvent:
    """An event without what cannot be sent: exceptions, and outputs that are no JSON."""
    response = event.response
    if response is not None:
        response = msgspec.structs.replace(response, output=_output(response))
    return msgspec.structs.replace(event, error=None, response=response)


def _output(response: Response) -> Any:
    try:
        return msgspec.to_builtins(response.output)
    except (TypeError, ValueError, RecursionError):
        return response.text


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | bool)
