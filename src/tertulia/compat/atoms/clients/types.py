"""What a model answers, and what tools gave."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass
class ToolCall:
    """A call that a model makes; `arguments` are JSON text."""

    id: str
    name: str
    arguments: str

    def to_dict(self) -> dict[str, Any]:
        """The call as a message of the assistant has it."""
        function = {"name": self.name, "arguments": self.arguments}
        return {"id": self.id, "type": "function", "function": function}


@dataclass
class ToolResult:
    """What a call gave, as text; with `is_error`, why it gave nothing."""

    tool_call_id: str
    name: str
    content: str
    is_error: bool = False

    def to_message(self) -> dict[str, Any]:
        """The result as a message of a tool."""
        return {
            "role": "tool",
            "tool_call_id": self.tool_call_id,
            "name": self.name,
            "content": self.content,
        }


@dataclass
class ChatResponse:
    """An answer as a whole; `usage` counts its tokens."""

    content: str | None = None
    tool_calls: list[ToolCall] | None = None
    usage: dict[str, Any] | None = None


@dataclass
class ChatChunk:
    """A piece of an answer. Tool calls come whole, in the last piece but one at the earliest."""

    content: str | None = None
    tool_calls: list[ToolCall] | None = None
    finish_reason: str | None = None
