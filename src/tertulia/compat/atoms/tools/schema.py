"""What a model is told of a function, in the form of OpenAI's chat completions."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast, get_type_hints

from tertulia.agents.schemas import shape_of, written_as
from tertulia.errors import InvalidInput

_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_SUMMARY = re.compile(r"<summary>(.*?)</summary>", re.DOTALL)
_NOT_TOLD = ("$defs", "additionalProperties", "default", "title")
"""What is left out of every schema: models that are compatible with OpenAI's differ in it."""


@dataclass(frozen=True)
class FunctionSchema:
    """Name, description and parameters of a function; the parameters as a JSON Schema."""

    name: str
    description: str
    parameters: dict[str, Any]


def schema_of(function: Callable[..., Any], name: str, description: str | None) -> FunctionSchema:
    """The schema of a function, from its type hints and its docstring.

    A parameter without a type that JSON knows is a string; ``*args`` and ``**kwargs`` are none.
    """
    shape = shape_of(_plain(function, name), name)
    found = _SUMMARY.search(shape.description)
    said = found[1] if found else shape.description
    parameters = cast(
        "dict[str, Any]", _simple(shape.parameters, shape.parameters.get("$defs", {}))
    )
    return FunctionSchema(name, said if description is None else description, parameters)


def _plain(function: Callable[..., Any], name: str) -> Callable[..., None]:
    """A function with the same parameters and docstring, all of its types known to JSON."""

    def plain(**given: Any) -> None: ...

    hints = get_type_hints(written_as(function), include_extras=True)
    told = inspect.signature(function).parameters.values()
    kept = [
        each.replace(annotation=_hint(hints.get(each.name, str)))
        for each in told
        if each.kind not in _VARIADIC
    ]
    plain.__name__ = plain.__qualname__ = name
    plain.__doc__ = inspect.getdoc(function)
    cast("Any", plain).__signature__ = inspect.Signature(kept)
    return plain


def _hint(hint: Any) -> Any:
    def one(value: Any) -> None: ...

    if hint is Any:
        return str
    one.__annotations__ = {"value": hint}
    try:
        shape_of(one, "one")
    except InvalidInput:
        return str
    return hint


def _simple(schema: Any, known: dict[str, Any], inside: tuple[str, ...] = ()) -> Any:
    """A schema without references and without null: an optional parameter is just not given."""
    if isinstance(schema, list):
        return [_simple(each, known, inside) for each in cast("list[Any]", schema)]
    if not isinstance(schema, dict):
        return schema
    node = cast("dict[str, Any]", schema)
    target = str(node.get("$ref", "")).rpartition("/")[2]
    if target:
        if target in inside:
            return {"type": "object"}
        others = {key: value for key, value in node.items() if key != "$ref"}
        return _simple({**known[target], **others}, known, (*inside, target))
    some = [each for each in node.get("anyOf", ()) if each != {"type": "null"}]
    if len(some) == 1:
        others = {key: value for key, value in node.items() if key != "anyOf"}
        return _simple({**some[0], **others}, known, inside)
    told: dict[str, Any] = {**node, "anyOf": some} if some else node
    return {
        key: _properties(value, known, inside)
        if key == "properties"
        else _simple(value, known, inside)
        for key, value in told.items()
        if key not in _NOT_TOLD
    }


def _properties(named: dict[str, Any], known: dict[str, Any], inside: tuple[str, ...]) -> Any:
    """The schemas of parameters, whose names may be words of JSON Schema."""
    return {name: _simple(each, known, inside) for name, each in named.items()}
