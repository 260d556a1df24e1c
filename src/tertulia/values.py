"""What may be stored: JSON values, ids and keys, checked once at the door."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

from tertulia.errors import InvalidInput

MAX_ID = 512
MAX_DEPTH = 64


def json_value(value: Any, what: str, depth: int = 0) -> Any:
    """A deep copy of a JSON value; tuples become lists.

    Raises InvalidInput, naming the place, for anything that JSON cannot carry unchanged: NaN,
    keys that are no text, bytes, dates, sets and objects.
    """
    kind = cast("type[object]", type(value))
    if kind is str or kind is int or kind is bool or value is None:
        return value
    if kind is float:
        if math.isfinite(value):
            return value
        raise InvalidInput(f"{what} is {value}, which JSON does not have; store None or text")
    if depth > MAX_DEPTH:
        raise InvalidInput(f"{what} is nested more than {MAX_DEPTH} deep")
    if isinstance(value, Mapping):
        return _json_object(cast("Mapping[Any, Any]", value), what, depth)
    if isinstance(value, list | tuple):
        items = cast("list[Any]", value)
        return [json_value(item, f"{what}[{i}]", depth + 1) for i, item in enumerate(items)]
    if isinstance(value, str | int | float):
        return json_value(_plain(value), what, depth)
    raise InvalidInput(
        f"{what} is a {kind.__name__}, which is no JSON value; convert it to text, a number, "
        "a list or a mapping first"
    )


def json_object(value: Any, what: str) -> dict[str, Any]:
    """A deep copy of a JSON object. Raises InvalidInput."""
    if not isinstance(value, Mapping):
        raise InvalidInput(f"{what} must be a mapping, not {type(value).__name__}")
    return _json_object(cast("Mapping[Any, Any]", value), what, 0)


def _json_object(value: Mapping[Any, Any], what: str, depth: int) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, item in value.items():
        if not isinstance(key, str):
            raise InvalidInput(f"{what} has the key {key!r}; the keys of a mapping must be text")
        result[key] = json_value(item, f"{what}[{key!r}]", depth + 1)
    return result


def _plain(value: str | int | float) -> str | int | float:
    """The builtin value of an enum member or of another subclass."""
    if isinstance(value, str):
        return str.__str__(value)
    return int(value) if isinstance(value, int) else float(value)


def storable(said: str) -> str:
    """Text as it can be stored: what UTF-8 cannot say, such as half a pair, becomes ``?``."""
    return said if said.isascii() else said.encode("utf-8", "replace").decode()


def identifier(value: Any, what: str) -> str:
    """A public id: 1 to 512 characters of text without control characters. It is never a path.

    Raises InvalidInput.
    """
    if not isinstance(value, str):
        raise InvalidInput(f"{what} must be text, not {type(value).__name__}")
    if not value:
        raise InvalidInput(f"{what} must not be empty; leave it out instead")
    if len(value) > MAX_ID:
        raise InvalidInput(f"{what} has {len(value)} characters; at most {MAX_ID} are allowed")
    if not value.isprintable():
        raise InvalidInput(f"{what} {value[:40]!r} has control characters or broken text in it")
    return value


def text(value: Any, what: str) -> str:
    """Text that can be stored as UTF-8. Raises InvalidInput."""
    if not isinstance(value, str):
        raise InvalidInput(f"{what} must be text, not {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(f"{what} is no Unicode text: {error.reason}") from None
    return value
