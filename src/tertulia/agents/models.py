"""What a model is to us: it gets the conversation and gives events. Nothing of a provider."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Protocol, runtime_checkable

import msgspec

from tertulia import settings
from tertulia.errors import ConfigurationError
from tertulia.messages import Message, ToolCall

OFFLINE = "offline"
_SET_ONE = (
    "name one with Agent(model=…), configure(model=…), TERTULIA_MODEL or --model, for example "
    '"openai:gpt-4o" (with OPENAI_API_KEY set) or "offline", the rule-based stand-in'
)


class ToolSpec(msgspec.Struct, frozen=True):
    """A tool as a model sees it; `parameters` is the JSON Schema of its arguments."""

    name: str
    description: str
    parameters: dict[str, Any]


class ModelRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a model is asked with: every tool call in `messages` has its result."""

    system: str | None = None
    messages: list[Message]
    tools: list[ToolSpec] = []
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


ModelLike = str | Model | None


class LanguageModel:
    """A model by its name; without one, the configured default, looked up at each turn.

    Raises ConfigurationError for a name that cannot be; `stream` also where no default is set.
    """

    def __init__(self, name: str | None = None) -> None:
        self._name = None if name is None else check_name(name)

    @property
    def name(self) -> str:
        """The name of the model that would answer now; raises ConfigurationError."""
        return model_for(self._name).name

    def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """The answer to a request, as it is made."""
        return model_for(self._name).stream(request)

    def __repr__(self) -> str:
        return f"LanguageModel({'' if self._name is None else repr(self._name)})"


def model_for(spec: ModelLike = None) -> Model:
    """The model that is meant; None is the configured default.

    Raises ConfigurationError where none is configured or the name cannot be.
    """
    if spec is None:
        spec = settings.model()
        if spec is None:
            raise ConfigurationError(f"no model is configured; {_SET_ONE}")
    if not isinstance(spec, str):
        return spec
    name = check_name(spec)
    if name == OFFLINE:
        from tertulia.agents.offline import OfflineModel

        return OfflineModel()
    from tertulia.agents.providers import ProviderModel

    return ProviderModel.named(name)


def check_name(name: str, provider: str | None = None) -> str:
    """The full name of a model, ``provider:model`` or ``offline``; raises ConfigurationError."""
    full = name if provider is None else f"{provider}:{name}"
    if full == OFFLINE or (all(full.partition(":")) and full.isprintable()):
        return full
    raise ConfigurationError(f"{full!r} names no model; {_SET_ONE}")
