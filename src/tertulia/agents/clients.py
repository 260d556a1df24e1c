"""pydantic-ai's models and the HTTP clients below them; imported at the first turn with one."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2
from pydantic_ai.direct import model_request_stream
from pydantic_ai.models import Model, StreamedResponse, infer_model
from pydantic_ai.providers import Provider, infer_provider, infer_provider_class

from tertulia.agents import mapping
from tertulia.agents.protocol import ModelRequest
from tertulia.errors import ConfigurationError

PATIENCE = 60.0
"""Seconds that a request waits because a provider asks for it; asked for more, it fails at once."""
_CONNECTING = 5.0
_LIMITS = httpx2.Limits(max_connections=1_000, max_keepalive_connections=100)
_KINDS = {"openai": "openai-chat"}
"""OpenAI's chat completions, which every compatible endpoint speaks too."""


class Connected:
    """A model, and the client that it uses; both belong to the running event loop."""

    def __init__(self, model: Model, client: httpx2.AsyncClient | None = None) -> None:
        self._model = model
        self._client = client

    def stream(self, request: ModelRequest) -> AbstractAsyncContextManager[StreamedResponse]:
        """The answer to a request."""
        settings = mapping.settings(request)
        return model_request_stream(
            self._model,
            mapping.messages(request, self._model.system),
            model_settings=settings,
            model_request_parameters=mapping.parameters(request, self._model, settings),
        )

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()
            return
        async with self._model:
            return  # leaving it closes what it made for itself


def connect(name: str, base_url: str | None, api_key: str | None, timeout: float) -> Connected:
    """The model with a full name. Raises ConfigurationError, and what the library raises.

    `timeout` is how many seconds its provider may be silent.
    """
    kind, _, model = name.partition(":")
    kind = _KINDS.get(kind, kind)
    client: list[httpx2.AsyncClient] = []

    def make(kind: str) -> Provider[Any]:
        given: dict[str, Any] = {"base_url": base_url, "api_key": api_key}
        given = {option: value for option, value in given.items() if value}
        if kind.startswith("gateway/") and not given:
            return infer_provider(kind)
        provider = _provider_class(kind, name)
        accepted = _accepted(provider, given, name)
        if {"openai_client", "anthropic_client"} & accepted:
            client.append(_client(timeout))
            given["http_client"] = client[0]
        return provider(**given)

    return Connected(infer_model(f"{kind}:{model}", make), *client)


def _accepted(provider: type[Provider[Any]], given: Iterable[str], name: str) -> set[str]:
    """The options that a provider takes, those that are given among them."""
    accepted = set(inspect.signature(provider).parameters)
    missing = [option for option in given if option not in accepted]
    if missing:
        raise ConfigurationError(f"{name} takes no {' and no '.join(missing)}")
    return accepted


def _provider_class(kind: str, name: str) -> type[Provider[Any]]:
    try:
        return infer_provider_class(kind)
    except ValueError:
        raise ConfigurationError(
            f"{name}: there is no provider {kind!r}; use openai, anthropic, or openai with the "
            "base_url= of a compatible endpoint"
        ) from None


def _client(timeout: float) -> httpx2.AsyncClient:
    """What OpenAI's and Anthropic's own clients send their requests through."""
    return httpx2.AsyncClient(
        timeout=httpx2.Timeout(timeout, connect=min(timeout, _CONNECTING)),
        limits=_LIMITS,
        event_hooks={"response": [_bound_wait]},
    )


async def _bound_wait(response: httpx2.Response) -> None:
    """Tell the provider's client, which tries again by itself, not to wait for too long."""
    if _wait_asked(response.headers) > PATIENCE:
        response.headers["x-should-retry"] = "false"


def _wait_asked(headers: httpx2.Headers) -> float:
    """Seconds that the provider asks to wait; 0 where it asks for nothing that can be read."""
    for header, unit in (("retry-after-ms", 1_000.0), ("retry-after", 1.0)):
        value = headers.get(header)
        if value is None:
            continue
        try:
            return float(value) / unit
        except ValueError:
            pass
        try:
            until = parsedate_to_datetime(value)
        except ValueError:
            continue
        return (until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return 0.0
