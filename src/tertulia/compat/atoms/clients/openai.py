"""A client of OpenAI's chat completions, and of every endpoint that is compatible with them."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tertulia.agents.failures import failure
from tertulia.agents.kept import PerLoop
from tertulia.compat.atoms.clients.base import BaseLLMClient
from tertulia.compat.atoms.clients.types import ChatChunk, ChatResponse, ToolCall
from tertulia.compat.atoms.type import NOT_GIVEN, NotGiven, is_given
from tertulia.errors import InvalidInput, MissingExtra, ModelError

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from openai.types.chat import ChatCompletionMessageToolCallUnion
    from openai.types.chat.chat_completion_chunk import ChoiceDeltaToolCall

_ELECTRON = "https://api.smallest.ai/waves/v1"


class OpenAIClient(BaseLLMClient):
    """A model behind OpenAI's chat completions, or behind another `base_url` that speaks them.

    `api_key` and `base_url` default to ``OPENAI_API_KEY`` and ``OPENAI_BASE_URL``. What else is
    given goes into every request. The HTTP client is made at the first request, one for each
    event loop. Raises InvalidInput without a key.
    """

    def __init__(
        self,
        model: str = "gpt-4o-mini",
        api_key: str | None = None,
        base_url: str | None = None,
        temperature: float | NotGiven = NOT_GIVEN,
        max_tokens: int | NotGiven = NOT_GIVEN,
        **kwargs: Any,
    ) -> None:
        key = api_key or os.environ.get("OPENAI_API_KEY")
        if not key:
            raise InvalidInput("there is no key for the model; pass api_key= or set OPENAI_API_KEY")
        self.model = model
        self.temperature = temperature
        self.max_tokens = max_tokens
        self._key = key
        self._base_url = base_url
        self._extra = kwargs
        self._connected: PerLoop[AsyncOpenAI] = PerLoop()

    def __repr__(self) -> str:
        return f"OpenAIClient({self.model!r})"

    @classmethod
    def electron(
        cls, api_key: str | None = None, model: str = "electron", **kwargs: Any
    ) -> OpenAIClient:
        """The Electron model of Smallest AI; the key defaults to ``SMALLEST_API_KEY``."""
        key = api_key or os.environ.get("SMALLEST_API_KEY")
        if not key:
            raise InvalidInput(
                "there is no key for Electron; pass api_key= or set SMALLEST_API_KEY"
            )
        return cls(model, key, kwargs.pop("base_url", _ELECTRON), **kwargs)

    async def chat(
        self,
        messages: list[dict[str, Any]],
        stream: bool = False,
        tools: list[dict[str, Any]] | None = None,
        **kwargs: Any,
    ) -> Any:
        """A `ChatResponse`; with `stream`, an async iterator of `ChatChunk`, begun at once.

        Tool calls of a stream come whole, in its last chunk. `kwargs` win over what the client
        was made with. Raises ModelError, and MissingExtra without the openai package.
        """
        asked = self._request(messages, tools, kwargs)
        if stream:
            return await self._streamed(asked)
        with self._translated():
            client = await self._connected.get(self._made)
            answer = await client.chat.completions.create(stream=False, **asked)
        if not answer.choices:
            raise ModelError(f"{self.model}: the answer is empty")
        message = answer.choices[0].message
        calls = [call for each in message.tool_calls or () for call in _whole_call(each)]
        usage = None if answer.usage is None else answer.usage.model_dump()
        return ChatResponse(message.content, calls or None, usage)

    async def aclose(self) -> None:
        """Let go of the connections; the next request makes new ones."""
        self._connected = PerLoop()

    async def _streamed(self, asked: dict[str, Any]) -> AsyncIterator[ChatChunk]:
        with self._translated():
            client = await self._connected.get(self._made)
            pieces = await client.chat.completions.create(stream=True, **asked)
        return self._chunks(pieces)

    async def _chunks(self, pieces: Any) -> AsyncGenerator[ChatChunk]:
        calls: dict[int, ToolCall] = {}
        reason: str | None = None
        with self._translated():
            async with pieces:
                async for piece in pieces:
                    for choice in piece.choices[:1]:
                        _gather(choice.delta.tool_calls or (), calls)
                        reason = choice.finish_reason or reason
                        if choice.delta.content:
                            yield ChatChunk(choice.delta.content)
        if reason is None:
            raise ModelError(f"{self.model}: the answer was cut off before its end")
        yield ChatChunk(None, [calls[index] for index in sorted(calls)] or None, reason)

    def _request(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None, given: Any
    ) -> dict[str, Any]:
        asked: dict[str, Any] = {
            "model": self.model,
            "messages": messages,
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "tools": tools or NOT_GIVEN,
            **self._extra,
            **given,
        }
        return {name: value for name, value in asked.items() if is_given(value)}

    def _made(self) -> AsyncOpenAI:
        try:
            from openai import AsyncOpenAI
        except ImportError as error:
            raise MissingExtra("openai", "the openai package") from error
        return AsyncOpenAI(api_key=self._key, base_url=self._base_url)

    @contextmanager
    def _translated(self) -> Generator[None]:
        """Raise our errors for those of the openai package, without a key in their text."""
        try:
            yield
            return
        except Exception as error:
            failed, cause = failure(error, f"openai:{self.model}", self._key)
        raise failed from cause


def _whole_call(call: ChatCompletionMessageToolCallUnion) -> Iterator[ToolCall]:
    if call.type == "function":
        yield ToolCall(call.id, call.function.name, call.function.arguments)


def _gather(pieces: Any, calls: dict[int, ToolCall]) -> None:
    """Add the pieces of tool calls to what there is of them."""
    piece: ChoiceDeltaToolCall
    for piece in pieces:
        call = calls.setdefault(piece.index, ToolCall("", "", ""))
        call.id = piece.id or call.id
        if piece.function is not None:
            call.name += piece.function.name or ""
            call.arguments += piece.function.arguments or ""
