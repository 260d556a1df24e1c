"""Models by their names, and all that a model of one's own needs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from math import inf
from urllib.parse import urlsplit

from tertulia import host as hosts
from tertulia import settings
from tertulia.agents.offline import OFFLINE, OfflineModel
from tertulia.agents.protocol import (
    Finished,
    Model,
    ModelEvent,
    ModelRequest,
    TextDelta,
    ToolCallMade,
    ToolSpec,
    UsageReport,
)
from tertulia.agents.providers import TIMEOUT, ProviderModel
from tertulia.errors import ConfigurationError

__all__ = [
    "Finished",
    "LanguageModel",
    "Model",
    "ModelEvent",
    "ModelLike",
    "ModelRequest",
    "TextDelta",
    "ToolCallMade",
    "ToolSpec",
    "UsageReport",
    "check_name",
    "model_for",
]

_SET_ONE = (
    "name one with Agent(model=…), configure(model=…), TERTULIA_MODEL or --model, for example "
    '"openai:gpt-4o" (with OPENAI_API_KEY set) or "offline", the rule-based stand-in'
)

ModelLike = str | Model | None


class LanguageModel:
    """A model by its name; without one, the configured default, looked up at each turn.

    `base_url` and `api_key` are for a provider elsewhere than its variables say: any endpoint
    that speaks OpenAI's chat completions is ``LanguageModel("openai:name", base_url=…)``.
    `timeout` is how many seconds the provider may be silent before the turn fails, 600 by default.

    Raises ConfigurationError for a name that cannot be, or options without the name of a
    provider's model; `stream` also where no default is set.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        timeout: float | None = None,
    ) -> None:
        self._name = None if name is None else check_name(name)
        self._own: ProviderModel | None = None
        if base_url is None and api_key is None and timeout is None:
            return
        if self._name is None or self._name == OFFLINE:
            raise ConfigurationError(
                "base_url, api_key and timeout belong to the model of a provider; name it: "
                'LanguageModel("openai:gpt-4o", base_url=…)'
            )
        self._own = ProviderModel(
            self._name,
            base_url=None if base_url is None else _address(base_url),
            api_key=api_key,
            timeout=TIMEOUT if timeout is None else _seconds(timeout),
        )

    def chosen(self) -> Model:
        """The model that would answer now. Raises ConfigurationError."""
        return self._own or model_for(self._name)

    @property
    def name(self) -> str:
        """The name of the model that would answer now; raises ConfigurationError."""
        return self.chosen().name

    def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """The answer to a request, as it is made."""
        return self.chosen().stream(request)

    def __repr__(self) -> str:
        return f"LanguageModel({'' if self._name is None else repr(self._name)})"


def model_for(spec: ModelLike = None) -> Model:
    """The model that is meant; None is the configured default.

    Raises ConfigurationError where none is configured or the name cannot be.
    """
    if spec is None:
        runtime = hosts.enclosing()
        spec = settings.model() if runtime is None or runtime.model is None else runtime.model
        if spec is None:
            raise ConfigurationError(f"no model is configured; {_SET_ONE}")
    if isinstance(spec, LanguageModel):
        return spec.chosen()
    if not isinstance(spec, str):
        if isinstance(spec, type) or not hasattr(spec, "stream"):
            raise ConfigurationError(f"{spec!r} is no model; {_SET_ONE}")
        return spec
    name = check_name(spec)
    if name == OFFLINE:
        return OfflineModel()
    return ProviderModel.named(name)


def check_name(name: str, provider: str | None = None) -> str:
    """The full name of a model, ``provider:model`` or ``offline``; raises ConfigurationError."""
    full = name if provider is None else f"{provider}:{name}"
    if full == OFFLINE or (all(full.partition(":")) and full.isprintable()):
        return full
    raise ConfigurationError(f"{full!r} names no model; {_SET_ONE}")


def _address(base_url: str) -> str:
    """An address, checked; one with a password would be shown in errors."""
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigurationError(
            'base_url= is an address such as "https://host/v1", and this one is not'
        )
    if parts.username is not None:
        raise ConfigurationError("base_url= must hold no user and no password; pass api_key=")
    return base_url


def _seconds(timeout: float) -> float:
    if not 0 < timeout < inf:
        raise ConfigurationError(f"timeout= is a number of seconds above 0, not {timeout!r}")
    return timeout
