"""What a model is to us: it gets the conversation and gives events. Nothing of a provider."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Protocol, runtime_checkable

import msgspec

from tertulia.messages import Message, ToolCall


class ToolSpec(msgspec.Struct, frozen=True):
    """A tool as a model sees it; `parameters` is the JSON Schema of its arguments."""

    name: str
    description: str
    parameters: dict[str, Any]


FINAL_RESULT = "final_result"
"""The tool by which a model answers where its provider has no JSON schema of its own."""


class OutputSpec(msgspec.Struct, frozen=True):
    """The answer that is asked for: `parameters` is its JSON Schema, which is an object."""

    name: str
    description: str
    parameters: dict[str, Any]


class ModelRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a model is asked with: every tool call in `messages` has its result."""

    system: str | None = None
    messages: list[Message]
    tools: list[ToolSpec] = []
    may_call: bool = True
    """False when it is to answer without calling any of the tools."""
    output: OutputSpec | None = None
    """Answer with this: as JSON text, or by calling the tool `final_result` with it."""
    temperature: float | None = None
    max_tokens: int | None = None


class TextDelta(msgspec.Struct, frozen=True):
    """The next piece of the answer."""

    text: str


class ToolCallMade(msgspec.Struct, frozen=True):
    """A tool call, whole; `malformed` is what was sent where arguments should have been."""

    call: ToolCall
    malformed: str | None = None


class UsageReport(msgspec.Struct, frozen=True):
    """Tokens of this request; the last report counts."""

    input_tokens: int = 0
    output_tokens: int = 0


class Finished(msgspec.Struct, frozen=True):
    """Why the model stopped: ``stop``, ``tool_calls``, ``length``, ``content_filter``, …"""

    reason: str


ModelEvent = TextDelta | ToolCallMade | UsageReport | Finished


@runtime_checkable
class Model(Protocol):
    """Something that answers. It keeps nothing between requests and may be used by many tasks.

    `stream` raises ModelError when there is no answer, or no whole one.
    """

    @property
    def name(self) -> str:
        """How the audit and the usage name it, for example ``openai:gpt-4o``."""
        ...

    def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """The answer to a request, as it is made."""
        ...
