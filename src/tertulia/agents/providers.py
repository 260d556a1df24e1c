"""Real models, through pydantic-ai: the only place that knows its names.

It takes a second to import, so it is imported on a thread at the first turn. A client belongs to
an event loop, so there is one for each, closed when the loop ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from tertulia.agents.failures import failure
from tertulia.agents.kept import Named, PerLoop
from tertulia.agents.protocol import (
    Finished,
    ModelEvent,
    ModelRequest,
    TextDelta,
    ToolCallMade,
    UsageReport,
)
from tertulia.errors import ModelError
from tertulia.messages import ToolCall

if TYPE_CHECKING:
    from pydantic_ai.messages import ModelResponse, ModelResponseStreamEvent
    from pydantic_ai.models import Model as PydanticModel
    from pydantic_ai.models import StreamedResponse

    from tertulia.agents.clients import Connected

TIMEOUT = 600.0
"""Seconds that a provider may be silent, its own retries included."""
_REASONS = {"tool_call": "tool_calls"}


class ProviderModel:
    """A model of a provider, by its full name, such as ``openai:gpt-4o``.

    Keys and addresses that are not given come from the provider's own variables:
    ``OPENAI_API_KEY``, ``OPENAI_BASE_URL``, ``ANTHROPIC_API_KEY``, ``ANTHROPIC_BASE_URL``.
    `timeout` is how many seconds the provider may be silent: before the first event, its retries
    included, and between two. `make` makes the pydantic-ai model; by default it is looked up by
    the name.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[], PydanticModel] | None = None,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        timeout: float = TIMEOUT,
    ) -> None:
        self._name = name
        self._make = make
        self._base_url = base_url
        self._api_key = api_key
        self._timeout = timeout
        self._connected: PerLoop[Connected] = PerLoop()

    @classmethod
    def named(cls, name: str) -> ProviderModel:
        """The one of this process with a name, as long as its variables stay the same."""
        return _named.get(name)

    @property
    def name(self) -> str:
        """The full name."""
        return self._name

    def __repr__(self) -> str:
        return f"ProviderModel({self._name!r})"

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """The answer. Raises ModelError, ConfigurationError and MissingExtra."""
        try:
            async with AsyncExitStack() as stack:
                stream, event = await self._first(request, stack)
                rest = aiter(stream)
                while event is not None:
                    text = _text(event)
                    if text:
                        yield TextDelta(text)
                    event = await anext(rest, None)
                for last in _closing_events(stream.get(), self._name):
                    yield last
            return
        except Exception as error:
            failed, cause = failure(error, self._name, self._api_key)
        raise failed from cause

    async def _first(
        self, request: ModelRequest, stack: AsyncExitStack
    ) -> tuple[StreamedResponse, ModelResponseStreamEvent | None]:
        """The answer as it begins, with its first event, which has to come in time."""
        connected = await self._connected.get(self._made)
        limit = asyncio.timeout(self._timeout)
        try:
            async with limit:
                stream = await stack.enter_async_context(connected.stream(request))
                return stream, await anext(aiter(stream), None)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise self._silent() from error

    def _made(self) -> Connected:
        from tertulia.agents import clients

        if self._make is not None:
            return clients.Connected(self._make())
        return clients.connect(self._name, self._base_url, self._api_key, self._timeout)

    def _silent(self) -> ModelError:
        return ModelError(
            f"{self._name} failed (timeout): nothing came within {self._timeout:g} s; the provider "
            "was silent for too long; try again later"
        )


def _text(event: ModelResponseStreamEvent) -> str:
    """The text that an event adds to the answer."""
    if event.event_kind == "part_start" and event.part.part_kind == "text":
        return event.part.content
    if event.event_kind == "part_delta" and event.delta.part_delta_kind == "text":
        return event.delta.content_delta
    return ""


def _cut_off(response: ModelResponse, name: str) -> bool:
    """Whether an answer has no end. For OpenAI the library makes up a reason where none came."""
    if response.state != "complete" or response.finish_reason == "error":
        return True
    told = "finish_reason" in (response.provider_details or {})
    usual = response.finish_reason in ("stop", "tool_call")
    return usual and not told and name.partition(":")[0] in ("openai", "openai-chat")


def _closing_events(response: ModelResponse, name: str) -> list[ModelEvent]:
    """Tool calls, usage and the reason of the end, once the answer is whole."""
    reason = response.finish_reason
    if reason is None or _cut_off(response, name):
        raise ModelError(f"{name}: the answer was cut off before its end")
    calls: list[ModelEvent] = []
    for part in response.parts:
        if part.part_kind != "tool-call":
            continue
        arguments = part.args_as_dict()
        malformed = part.args if set(arguments) == {"INVALID_JSON"} else None
        call = ToolCall(part.tool_call_id, part.tool_name, arguments)
        calls.append(ToolCallMade(call, None if malformed is None else str(malformed)))
    usage = UsageReport(response.usage.input_tokens, response.usage.output_tokens)
    return [*calls, usage, Finished(_REASONS.get(reason, reason))]


_named = Named(ProviderModel)
