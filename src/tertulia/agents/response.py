"""What a turn gives back, whole or as it happens."""

from __future__ import annotations

from typing import Any, Literal, NoReturn

import msgspec

from tertulia.errors import UsageError
from tertulia.messages import Message, ToolCall

EventType = Literal[
    "turn_started",
    "text_delta",
    "tool_call",
    "tool_result",
    "message",
    "usage",
    "turn_completed",
    "error",
]


class Usage(msgspec.Struct, frozen=True):
    """What the model calls of a turn consumed; 0 where a provider does not say."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens

    def plus(self, input_tokens: int, output_tokens: int) -> Usage:
        """This and one more request."""
        return Usage(
            self.requests + 1,
            self.input_tokens + input_tokens,
            self.output_tokens + output_tokens,
        )


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of a turn. `messages` are all that the turn added, the request first;
    `turn` is its number; `latency` is in seconds."""

    text: str
    messages: list[Message] = []
    tool_calls: list[ToolCall] = []
    usage: Usage = Usage()
    turn: int = 0
    latency: float = 0.0

    def __str__(self) -> str:
        return self.text

    def __await__(self) -> NoReturn:
        raise UsageError(
            "this call was synchronous and its response is here already; leave out the await, "
            "or await its twin: run_async, stream_async, json_async"
        )


class StreamEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that happens in a turn; which fields are set depends on `type`.

    ``turn_started`` (turn), ``text_delta`` (text), ``tool_call`` (call), ``tool_result``
    (message), ``message`` (message), ``usage`` (usage), ``turn_completed`` (response, turn),
    ``error`` (error).
    """

    type: EventType
    text: str = ""
    call: ToolCall | None = None
    message: Message | None = None
    usage: Usage | None = None
    response: Response | None = None
    error: Any = None
    turn: int | None = None
