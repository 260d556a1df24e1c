"""What every client of a model does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any


class BaseLLMClient(ABC):
    """A client of a model that chats."""

    @abstractmethod
    async def chat(
        self,
        messages: list[dict[str, Any]],
        stream: bool = False,
        tools: list[dict[str, Any]] | None = None,
        **kwargs: Any,
    ) -> Any:
        """A `ChatResponse`; with `stream`, what iterates over `ChatChunk`."""

    async def aclose(self) -> None:
        """Let go of its connections."""
        return
