"""What is told when a provider fails: one of our errors, what to do, and never a key."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from traceback import format_exception
from typing import Any, cast

from tertulia.errors import AgentError, ConfigurationError, MissingExtra, ModelError

_EXTRAS = {"openai": "openai", "openai-chat": "openai", "openai-responses": "openai"}
_LONGEST = 500
_SECRETS = ("_KEY", "_TOKEN", "_SECRET", "_PASSWORD")
"""How the names of variables end that hold secrets: each provider reads one of its own."""
_SHORTEST = 8
"""Characters of such a variable: less would be found where it is none."""
_SHORTEST_GIVEN = 4
"""Characters of a key that was given."""

_ADVICE = {
    400: "the provider refused the request as it is",
    401: "the provider refused the key; check {key}, or api_key=",
    402: "the account has no credit left; add some, or use another key",
    403: "this key may not do that; check what {key}, or api_key=, has access to",
    404: "there is no such model at this address; check its name, and base_url= if you set it",
    408: "try again later",
    413: "the conversation is too long; prune it, or let the agent see less of it",
    429: "the limit of this key is reached; {wait}, ask less often, or use another model",
}
_KINDS = {
    "ModelContextWindowExceededError": _ADVICE[413],
    "ModelQuotaExceededError": _ADVICE[402],
    "ModelTimeoutError": "the provider was silent for too long; try again later",
    "ModelRequestTimeout": "the provider was silent for too long; try again later",
    "ModelConnectionError": "the connection failed; check the network, and base_url= if you set it",
}


def failure(
    error: Exception, name: str, api_key: str | None = None
) -> tuple[AgentError, Exception | None]:
    """Our error, and what may be shown as its cause: nothing in which a secret can be read.

    Secrets are the given key, and what the environment holds of keys, tokens and passwords.
    """
    hidden = _secrets(api_key)
    made = translated(error, name, hidden)
    if made is error or any(secret in "".join(format_exception(error)) for secret in hidden):
        return made, None
    return made, error


def translated(error: Exception, name: str, secrets: Iterable[str] = ()) -> AgentError:
    """Our error for one that a provider or its client raised: the one place where that is done."""
    if isinstance(error, AgentError):
        return error
    provider = name.partition(":")[0]
    if isinstance(error, ImportError):
        return MissingExtra(_EXTRAS.get(provider, provider), f"what {name} needs ({error})")
    if type(error).__name__ == "UserError":
        if "API_KEY" in str(error):
            return missing_key(provider, name)
        return ConfigurationError(_without(f"{name}: {error}", secrets))
    status = _number(error, "status_code")
    wait = _number(error, "retry_after")
    kind = type(error).__name__.lstrip("_") if status is None else f"HTTP {status:g}"
    advice = _advice(error, status, wait, provider)
    said = _without(_said(error), secrets)
    if len(said) > _LONGEST:
        said = f"{said[:_LONGEST]}…"
    text = f"{name} failed ({kind}): {said}"
    return ModelError(
        _without(f"{text}; {advice}" if advice else text, secrets),
        status=None if status is None else int(status),
        retry_after=wait,
    )


def missing_key(provider: str, name: str) -> ConfigurationError:
    """What is told where the key of a provider is not set."""
    return ConfigurationError(
        f"{name} needs the environment variable {key_of(provider)}; set it, or use another model, "
        "for example offline"
    )


def key_of(provider: str) -> str:
    """The environment variable with the key of a provider."""
    return f"{prefix_of(provider)}_API_KEY"


def prefix_of(provider: str) -> str:
    """How the environment variables of a provider begin."""
    return re.sub(r"\W.*", "", provider.partition(":")[0].removeprefix("gateway/")).upper()


def _advice(error: Exception, status: float | None, wait: float | None, provider: str) -> str:
    for kind in type(error).__mro__:
        if kind.__name__ in _KINDS:
            return _KINDS[kind.__name__]
    if status is not None and status >= 500:
        return "the provider has trouble of its own; try again later"
    advice = _ADVICE.get(int(status or 0), "")
    waiting = "wait a while" if wait is None else f"wait {wait:g} s"
    return advice.format(key=key_of(provider), wait=waiting)


def _said(error: Exception) -> str:
    """What the provider said, where it said it in the usual way."""
    body: Any = getattr(error, "body", None)
    for _ in range(2):
        if isinstance(body, Mapping):
            mapping = cast("Mapping[str, Any]", body)
            body = mapping.get("error") or mapping.get("message")
    return body if isinstance(body, str) else str(error) or type(error).__name__


def _number(error: Exception, name: str) -> float | None:
    found = getattr(error, name, None)
    return found if isinstance(found, int | float) else None


def _secrets(api_key: str | None) -> list[str]:
    """What no error may show; one that begins with another comes before it."""
    found = {
        value
        for variable, value in os.environ.items()
        if variable.upper().endswith(_SECRETS) and len(value) >= _SHORTEST
    }
    if api_key is not None and len(api_key) >= _SHORTEST_GIVEN:
        found.add(api_key)
    return sorted(found, key=len, reverse=True)


def _without(text: str, secrets: Iterable[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, "***")
    return text
