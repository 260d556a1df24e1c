"""Real models, through pydantic-ai: the only place that knows its names.

It takes a second to import, so it is imported on a thread at the first turn. A client belongs to
the event loop that it was made on, so there is one for each loop, closed when the loop ends.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from tertulia.agents.protocol import (
    Finished,
    ModelEvent,
    ModelRequest,
    TextDelta,
    ToolCallMade,
    UsageReport,
)
from tertulia.agents.tools import in_thread
from tertulia.errors import AgentError, ConfigurationError, MissingExtra, ModelError
from tertulia.messages import ToolCall

if TYPE_CHECKING:
    from pydantic_ai.messages import ModelResponse, ModelResponseStreamEvent
    from pydantic_ai.models import Model as PydanticModel

_KINDS = {"openai": "openai-chat"}
"""OpenAI's chat completions, which every compatible endpoint speaks too."""
_EXTRAS = {"openai": "openai", "openai-chat": "openai", "openai-responses": "openai"}
_REASONS = {"tool_call": "tool_calls"}

Loop = asyncio.AbstractEventLoop


class ProviderModel:
    """A model of a provider, by its full name, such as ``openai:gpt-4o``.

    Keys and addresses come from the provider's own variables: ``OPENAI_API_KEY``,
    ``OPENAI_BASE_URL``, ``ANTHROPIC_API_KEY``. `make` makes the pydantic-ai model; by default
    it is looked up by the name.
    """

    def __init__(self, name: str, make: Callable[[], PydanticModel] | None = None) -> None:
        self._name = name
        self._make = make or (lambda: _infer(name))
        self._lock = threading.Lock()
        self._made: WeakKeyDictionary[Loop, tuple[PydanticModel, AsyncGenerator[None]]] = (
            WeakKeyDictionary()
        )

    @classmethod
    def named(cls, name: str) -> ProviderModel:
        """The one of this process with a name, as long as its variables stay the same."""
        prefix = name.partition(":")[0].partition("-")[0].upper()
        variables = tuple(os.environ.get(f"{prefix}_{what}") for what in ("API_KEY", "BASE_URL"))
        return _named.setdefault((name, variables), cls(name))

    @property
    def name(self) -> str:
        """The full name."""
        return self._name

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """The answer. Raises ModelError, ConfigurationError and MissingExtra."""
        try:
            async with AsyncExitStack() as stack:
                async for event in self._events(request, stack):
                    yield event
        except Exception as error:
            raise translated(error, self._name) from error

    async def _events(
        self, request: ModelRequest, stack: AsyncExitStack
    ) -> AsyncIterator[ModelEvent]:
        await _load()
        from pydantic_ai.direct import model_request_stream

        from tertulia.agents import mapping

        model = await self._on_this_loop()
        stream = await stack.enter_async_context(
            model_request_stream(
                model,
                mapping.messages(request),
                model_settings=mapping.settings(request),
                model_request_parameters=mapping.parameters(request),
            )
        )
        async for event in stream:
            text = _text(event)
            if text:
                yield TextDelta(text)
        for last in _closing_events(stream.get(), self._name):
            yield last

    async def _on_this_loop(self) -> PydanticModel:
        loop = asyncio.get_running_loop()
        with self._lock:
            found = self._made.get(loop)
        if found is not None:
            return found[0]
        model = self._make()
        keeper = _keep(model)
        with self._lock:
            self._made[loop] = (model, keeper)
        await anext(keeper)
        return model


def translated(error: Exception, name: str) -> AgentError:
    """Our error for one that a provider or its client raised: the one place where that is done."""
    if isinstance(error, AgentError):
        return error
    provider = name.partition(":")[0]
    if isinstance(error, ImportError):
        return MissingExtra(_EXTRAS.get(provider, provider), f"what {name} needs ({error})")
    if type(error).__name__ == "UserError":
        if "API_KEY" in str(error):
            return missing_key(provider, name)
        return ConfigurationError(f"{name}: {error}")
    status = getattr(error, "status_code", None)
    kind = type(error).__name__ if status is None else f"HTTP {status}"
    return ModelError(f"{name} failed ({kind}): {error}")


def missing_key(provider: str, name: str) -> ConfigurationError:
    """What is told where the key of a provider is not set."""
    prefix = provider.partition("-")[0].upper()
    return ConfigurationError(
        f"{name} needs the environment variable {prefix}_API_KEY; set it, or use another model, "
        "for example offline"
    )


def _infer(name: str) -> PydanticModel:
    from pydantic_ai.models import infer_model

    provider, _, model = name.partition(":")
    return infer_model(f"{_KINDS.get(provider, provider)}:{model}")


async def _load() -> None:
    """Import the library once, without holding up the loop."""
    if _loaded:
        return

    def load() -> None:
        import pydantic_ai.direct  # noqa: F401  # pyright: ignore[reportUnusedImport]

    await in_thread(load)
    _loaded.append(True)


async def _keep(model: PydanticModel) -> AsyncGenerator[None]:
    """Holds the model's client open: a loop that shuts down closes its generators, so this."""
    async with model:
        yield


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


_loaded: list[bool] = []
_named: dict[tuple[str, tuple[str | None, ...]], ProviderModel] = {}
