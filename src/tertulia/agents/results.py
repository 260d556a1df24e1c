"""What a tool gives back, as the text that a model reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, cast

import msgspec

from tertulia.errors import ToolError
from tertulia.events import MAX_BODY

MAX_RESULT = 256_000
"""Characters of a result; a longer one is told to the model as an error."""
MAX_STORED = MAX_BODY - 100_000
"""Bytes of a result as it is stored, in JSON; the rest is for the message around it."""
_ALWAYS_FITS = MAX_STORED // 6 - 1
"""Characters, none of which takes more than six bytes in JSON."""
_PREFIXES = ("Error serializing to JSON: ", "TypeError: ", "ValueError: ", "UnicodeEncodeError: ")
_ADVICE = "return text, numbers, lists, mappings, dataclasses or pydantic models"


def text_of(value: Any) -> str:
    """A result as text: text as it is, all else as JSON; blank text as JSON too, never as nothing.

    Raises ToolError for what JSON does not have, and for more than `MAX_RESULT` characters or
    `MAX_STORED` bytes.
    """
    try:
        text = _encoded(value)
    except (ValueError, TypeError) as error:
        raise ToolError(f"the result cannot be shown: {_said(error)}; {_ADVICE}") from None
    if len(text) > MAX_RESULT:
        raise ToolError(
            f"the result has {len(text)} characters, more than {MAX_RESULT}; ask for less"
        )
    stored = len(msgspec.json.encode(text)) if len(text) > _ALWAYS_FITS else 0
    if stored > MAX_STORED:
        raise ToolError(
            f"the result takes {stored} bytes in JSON, more than {MAX_STORED}; ask for less"
        )
    return text


def _encoded(value: Any) -> str:
    from pydantic_core import to_json

    if isinstance(value, str) and value.strip():
        str.encode(value)  # lone surrogates are no text
        return str.__str__(value)
    return to_json(value, inf_nan_mode="strings", fallback=_plain).decode()


def _plain(value: Any) -> Any:
    """What stands for a value that pydantic does not know. Raises TypeError."""
    from pydantic_core import to_jsonable_python

    def inner(other: Any) -> Any:
        return to_jsonable_python(other, inf_nan_mode="strings", fallback=_plain)

    if isinstance(value, msgspec.Struct):
        return msgspec.to_builtins(value, enc_hook=inner)
    if isinstance(value, Mapping):
        return dict(cast("Mapping[Any, Any]", value))
    if isinstance(value, Sequence | AbstractSet):
        return list(cast("Sequence[Any] | AbstractSet[Any]", value))
    raise TypeError(f"{type(value).__name__} is no JSON type")


def _said(error: Exception) -> str:
    text = str(error)
    for prefix in _PREFIXES:
        text = text.removeprefix(prefix)
    return text.split("\n", 1)[0]
