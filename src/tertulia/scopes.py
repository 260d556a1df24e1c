"""Scoped state: its four scopes, its keys and its values.

`session` state belongs to one conversation and is cleared when it ends. `user` state belongs to
a user of an app and `app` state to an app; both are shared by sessions and processes. `temp`
state lives for one turn and is never written.
"""

from __future__ import annotations

from typing import Any, Final, Literal, cast, get_args

from tertulia.codec import encode
from tertulia.errors import InvalidInput, ScopeError
from tertulia.values import json_value

Scope = Literal["session", "user", "app", "temp"]
SCOPES: Final[tuple[str, ...]] = get_args(Scope)
MAX_KEY: Final = 256
MAX_VALUE: Final = 256 * 1024
"""Bytes of JSON."""


def check_scope(scope: object) -> Scope:
    """One of the four scopes; raises ScopeError."""
    if scope in SCOPES:
        return cast("Scope", scope)
    raise ScopeError(f"scope {scope!r} does not exist; use one of {', '.join(SCOPES)}")


def check_key(key: object) -> str:
    """A key of state: 1 to 256 printable characters; raises InvalidInput."""
    if not isinstance(key, str):
        raise InvalidInput(f"a state key must be text, not {type(key).__name__}")
    if not key:
        raise InvalidInput("a state key must not be empty")
    if len(key) > MAX_KEY:
        raise InvalidInput(
            f"the state key {key[:40]!r}... has {len(key)} characters; at most {MAX_KEY} are "
            "allowed"
        )
    if not key.isprintable():
        raise InvalidInput(
            f"the state key {key[:40]!r} has control characters or broken text in it"
        )
    return key


def check_value(value: Any, key: str) -> tuple[Any, bytes]:
    """A deep copy of a value and its JSON bytes, at most 256 KB.

    Raises InvalidInput, naming the key, when it is larger or no JSON value.
    """
    what = f"the state value of {key!r}"
    copy = json_value(value, what)
    data = encode(copy, what)
    if len(data) > MAX_VALUE:
        raise InvalidInput(
            f"{what} is {len(data):,} bytes; at most {MAX_VALUE:,} can be stored: split it over "
            "several keys, or keep it elsewhere and store a reference"
        )
    return copy, data


def require_owner(scope: Scope, user_id: str | None) -> None:
    """Check that a session without a user is not asked for a user's state; raises ScopeError."""
    if scope == "user" and user_id is None:
        raise ScopeError("user scope needs user_id=…; this session has no user")
