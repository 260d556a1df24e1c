"""What a turn gives back, whole or as it happens."""

from __future__ import annotations

from typing import Any, Literal, NoReturn, cast

import msgspec

from tertulia.approvals import Approval
from tertulia.errors import UsageError
from tertulia.messages import Message, ToolCall
from tertulia.usage import Usage

EventType = Literal[
    "turn_started",
    "text_delta",
    "tool_call",
    "tool_result",
    "handoff",
    "message",
    "usage",
    "turn_suspended",
    "turn_completed",
    "error",
]


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of a turn. `messages` are all that the turn added, the request first;
    `turn` is its number; `latency` is in seconds.

    With a structured output, its fields are attributes of the response too.
    """

    text: str
    output: Any = None
    """What `output_type` or `schema` asked for; else the text."""
    messages: list[Message] = []
    tool_calls: list[ToolCall] = []
    usage: Usage = Usage()
    turn: int = 0
    latency: float = 0.0
    agent: str | None = None
    """The agent that answered."""
    pending: list[Approval] = []
    """The tool calls that wait for an approval: the turn is suspended, and this no answer yet."""

    def __str__(self) -> str:
        return self.text

    def __getattr__(self, name: str) -> Any:
        output: Any = None if name.startswith("__") else self.output
        if isinstance(output, dict) and name in output:
            return cast("dict[str, Any]", output)[name]
        if output is not None and not isinstance(output, str | dict) and hasattr(output, name):
            return getattr(output, name)
        if isinstance(output, str):
            hint = f"for response.{name} give the agent output_type=, or call json(schema=…)"
        else:
            hint = f"its output is a {type(cast('Any', output)).__name__}"
        raise AttributeError(f"the response has no {name!r}; {hint}")

    def __await__(self) -> NoReturn:
        raise UsageError(
            "this call was synchronous and its response is here already; leave out the await, "
            "or await its twin: run_async, stream_async, json_async, resume_async"
        )


class HandoffMade(msgspec.Struct, frozen=True):
    """An agent gave the floor to another one."""

    source: str | None
    target: str
    reason: str = ""


class StreamEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that happens in a turn; which fields are set depends on `type`.

    ``turn_started`` (turn), ``text_delta`` (text), ``tool_call`` (call), ``tool_result``
    (message), ``handoff`` (handoff), ``message`` (message), ``usage`` (usage),
    ``turn_completed`` and ``turn_suspended`` (response, turn), ``error`` (error).
    """

    type: EventType
    text: str = ""
    call: ToolCall | None = None
    message: Message | None = None
    handoff: HandoffMade | None = None
    usage: Usage | None = None
    response: Response | None = None
    error: Any = None
    turn: int | None = None
