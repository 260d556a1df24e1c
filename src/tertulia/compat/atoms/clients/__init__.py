"""Clients of models, and what they answer with."""

from tertulia.compat.atoms.clients.base import BaseLLMClient
from tertulia.compat.atoms.clients.openai import OpenAIClient
from tertulia.compat.atoms.clients.types import ChatChunk, ChatResponse, ToolCall, ToolResult

__all__ = [
    "BaseLLMClient",
    "ChatChunk",
    "ChatResponse",
    "OpenAIClient",
    "ToolCall",
    "ToolResult",
]
