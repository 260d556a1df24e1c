"""The JSON Schema of a function's arguments, from its type hints and its docstring."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, cast

import msgspec

from tertulia.errors import InvalidInput

_SECTION = re.compile(r"^(\w+(?: \w+)?):\s*$")
_ENTRY = re.compile(r"^(\*{0,2}\w+)\s*(?:\([^)]*\))?\s*:\s*(.*)$")
_ARGUMENTS = frozenset(("args", "arguments", "parameters", "params"))
_IMMUTABLE = (str, int, float, bool, bytes, tuple, frozenset, type(None))


class Shape(msgspec.Struct, frozen=True):
    """What is known of a function's arguments."""

    parameters: dict[str, Any]
    """The JSON Schema of the arguments, which are an object."""
    type: type[msgspec.Struct]
    description: str
    context: str | None
    """The parameter that gets the RunContext."""

    def arguments(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments as the function wants them. Raises ValueError, naming what is wrong."""
        try:
            made = msgspec.convert(dict(given), self.type, strict=False, dec_hook=_decode)
        except msgspec.ValidationError as error:
            raise ValueError(str(error)) from None
        return {name: getattr(made, name) for name in made.__struct_fields__}


def shape_of(function: Callable[..., Any], name: str, context: type) -> Shape:
    """The shape of a function; raises InvalidInput for what no schema can say."""
    description, notes = read_docstring(inspect.getdoc(function) or "")
    fields: list[tuple[str, Any, Any]] = []
    wants: str | None = None
    for parameter in _signature(function, name).parameters.values():
        hint: Any = parameter.annotation
        if hint is context:
            wants = parameter.name
            continue
        fields.append(_field(parameter, name, notes.get(parameter.name)))
    try:
        made = msgspec.defstruct("Arguments", fields, kw_only=True, forbid_unknown_fields=True)
        parameters = _schema(made)
    except (TypeError, NotImplementedError) as error:
        raise InvalidInput(f"tool {name!r} cannot be described to a model: {error}") from None
    return Shape(parameters, made, description, wants)


def read_docstring(text: str) -> tuple[str, dict[str, str]]:
    """The description, and what is said of each argument under ``Args:``."""
    description: list[str] = []
    notes: dict[str, str] = {}
    section, current = "", ""
    for line in text.splitlines():
        header = _SECTION.match(line)
        if header is not None:
            section, current = header[1].lower(), ""
        elif not section:
            description.append(line)
        elif section in _ARGUMENTS:
            entry = _ENTRY.match(line.strip())
            if entry is not None and _indent(line) <= 4:
                current = entry[1].lstrip("*")
                notes[current] = entry[2].strip()
            elif current and line.strip():
                notes[current] = f"{notes[current]} {line.strip()}".strip()
    return "\n".join(description).strip(), notes


def encode_result(value: Any) -> str:
    """A result as text: text as it is, all else as JSON. Raises TypeError for what JSON has not."""
    if isinstance(value, str):
        return value
    return msgspec.json.encode(value, enc_hook=_encode).decode()


def is_pydantic(kind: Any) -> bool:
    """Whether a type is a pydantic model, without importing pydantic."""
    return isinstance(kind, type) and hasattr(kind, "model_json_schema")


def _signature(function: Callable[..., Any], name: str) -> inspect.Signature:
    try:
        return inspect.signature(function, eval_str=True)
    except NameError as error:
        raise InvalidInput(
            f"tool {name!r}: {error}; its type hints must be importable names of its module"
        ) from None


def _field(parameter: inspect.Parameter, tool: str, note: str | None) -> tuple[str, Any, Any]:
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        raise InvalidInput(
            f"tool {tool!r} takes *{parameter.name}, which a model cannot be told of; "
            "name every parameter"
        )
    hint: Any = Any if parameter.annotation is parameter.empty else parameter.annotation
    if note:
        hint = Annotated[hint, msgspec.Meta(description=note)]
    default: Any = parameter.default
    if default is parameter.empty:
        return parameter.name, hint, msgspec.field()
    if type(default) in _IMMUTABLE:
        return parameter.name, hint, msgspec.field(default=default)
    return parameter.name, hint, msgspec.field(default_factory=lambda: copy.deepcopy(default))


def _schema(made: type[msgspec.Struct]) -> dict[str, Any]:
    """The schema of the arguments, with the definitions that it refers to beside it."""
    definitions: dict[str, Any] = {}

    def hook(kind: type) -> dict[str, Any]:
        if not is_pydantic(kind):
            raise NotImplementedError(f"{kind!r} has no JSON schema")
        schema: dict[str, Any] = cast("Any", kind).model_json_schema()
        definitions.update(schema.pop("$defs", {}))
        return schema

    _, components = msgspec.json.schema_components(
        [made], schema_hook=hook, ref_template="#/$defs/{name}"
    )
    schema = components.pop("Arguments")
    schema.pop("title", None)
    schema.setdefault("required", [])
    definitions.update(components)
    if definitions:
        schema["$defs"] = definitions
    return schema


def _decode(kind: type, value: Any) -> Any:
    if is_pydantic(kind):
        return cast("Any", kind).model_validate(value)
    if isinstance(value, kind):
        return value
    raise TypeError(f"expected {kind.__name__}")


def _encode(value: Any) -> Any:
    if is_pydantic(type(value)):
        return value.model_dump(mode="json")
    raise TypeError(f"a {type(value).__name__} is no JSON value")


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
