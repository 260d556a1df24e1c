"""Real models, through pydantic-ai: the only place that knows its names.

It takes a second to import, so it is imported on a thread at the first turn. A client belongs to
an event loop, so there is one for each, closed when the loop ends.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING
from weakref import finalize

from tertulia.agents.failures import failure, prefix_of
from tertulia.agents.portal import hold
from tertulia.agents.protocol import (
    Finished,
    ModelEvent,
    ModelRequest,
    TextDelta,
    ToolCallMade,
    UsageReport,
)
from tertulia.agents.tools import in_thread
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
_KEPT = 64
"""Models by name that a process holds on to; another name lets go of the oldest."""

Loop = asyncio.AbstractEventLoop


class _Kept:
    """A model of a loop, and what closes it at the loop's end, or when nobody has it any more."""

    def __init__(self, connected: Connected) -> None:
        self.connected = connected
        self.keeper: AsyncGenerator[None] | None = None
        self.let_go: finalize[..., ProviderModel] | None = None

    async def keep(self, loop: Loop, of: dict[Loop, _Kept]) -> AsyncGenerator[None]:
        """Waits for the end of a loop, which closes its generators, so this, and the client."""
        try:
            yield
        finally:
            of.pop(loop, None)
            if self.let_go is not None:
                self.let_go.detach()
            await self.connected.close()

    async def close(self) -> None:
        """Close the client."""
        if self.keeper is not None:
            await self.keeper.aclose()


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
        self._lock = threading.Lock()
        self._kept: dict[Loop, _Kept] = {}

    @classmethod
    def named(cls, name: str) -> ProviderModel:
        """The one of this process with a name, as long as its variables stay the same."""
        prefix = prefix_of(name)
        variables = tuple(os.environ.get(f"{prefix}_{what}") for what in ("API_KEY", "BASE_URL"))
        with _naming:
            made = _named.pop((name, variables), None) or cls(name)
            _named[name, variables] = made
            while len(_named) > _KEPT:
                del _named[next(iter(_named))]
        return made

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
            failed, cause = failure(error, self._name, self._secrets())
        raise failed from cause

    async def _first(
        self, request: ModelRequest, stack: AsyncExitStack
    ) -> tuple[StreamedResponse, ModelResponseStreamEvent | None]:
        """The answer as it begins, with its first event, which has to come in time."""
        connected = await self._on_this_loop()
        limit = asyncio.timeout(self._timeout)
        try:
            async with limit:
                stream = await stack.enter_async_context(connected.stream(request))
                return stream, await anext(aiter(stream), None)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise self._silent() from error

    async def _on_this_loop(self) -> Connected:
        loop = asyncio.get_running_loop()
        kept = self._kept.get(loop)
        if kept is None:
            kept = await in_thread(lambda: self._connect(loop))
        if kept.keeper is None:
            kept.keeper = kept.keep(loop, self._kept)
            kept.let_go = finalize(self, _close_soon, loop, kept)
            kept.let_go.atexit = False
            await anext(kept.keeper)
        return kept.connected

    def _connect(self, loop: Loop) -> _Kept:
        """Make the model for a loop. On a thread: what is imported first takes a second."""
        with self._lock:
            for old in [old for old in self._kept if old.is_closed()]:
                del self._kept[old]
            kept = self._kept.get(loop)
            if kept is None:
                kept = self._kept[loop] = _Kept(self._made())
        return kept

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

    def _secrets(self) -> list[str]:
        """What no error may show: the key, and what else the provider's variables hold."""
        prefix = prefix_of(self._name)
        found = [
            value
            for variable, value in os.environ.items()
            if variable.startswith(prefix) and variable.endswith(("_KEY", "_TOKEN"))
        ]
        return found if self._api_key is None else [self._api_key, *found]


def _close_soon(loop: Loop, kept: _Kept) -> None:
    """Close the client of a model that nobody has any more, on its own loop."""
    try:
        loop.call_soon_threadsafe(hold, kept.close)
    except RuntimeError:
        return  # the loop was closed, and the client with it


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


_named: dict[tuple[str, tuple[str | None, ...]], ProviderModel] = {}
_naming = threading.Lock()
