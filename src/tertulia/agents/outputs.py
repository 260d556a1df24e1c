"""Structured answers: the schema that a model is given, and its answer as what was asked for.

As in `schemas`, schema and validation are the model library's, which is imported when needed.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast, get_origin

from tertulia.agents.protocol import FINAL_RESULT, OutputSpec
from tertulia.agents.schemas import unlinked, validated
from tertulia.agents.tools import in_thread
from tertulia.errors import InvalidInput

if TYPE_CHECKING:
    from pydantic import TypeAdapter

MAX_KNOWN = 256
"""Types whose schemas are kept; the one made first gives way."""
_KEY = "response"
"""Where the value is whose schema is no object, which is what providers take."""
_FENCE = re.compile(r"```\w*[^\S\n]*\n(.*)```", re.DOTALL)
_JSON_BEGINS = ("{", "[", '"')
_NO_NAME = re.compile(r"[^A-Za-z0-9_-]+")
_TYPING = ("typing", "typing_extensions", "types")


class Output:
    """A type that is asked of a model. Made by `output_of` or `prepare_output`."""

    __slots__ = ("_adapter", "_wrapped", "spec")

    def __init__(self, spec: OutputSpec, adapter: TypeAdapter[Any], *, wrapped: bool) -> None:
        self.spec = spec
        self._adapter = adapter
        self._wrapped = wrapped

    def __repr__(self) -> str:
        return f"Output({self.spec.name!r})"

    def read(self, text: str) -> Any:
        """The value in an answer: JSON, also in a Markdown fence or without its wrapping.

        Raises ValueError, with a short text that tells a model what to put right.
        """
        text = _unfenced(text)
        text = _wrapped(text) if self._wrapped else text
        return self._bare(validated(lambda: self._adapter.validate_json(text)))

    def read_arguments(self, given: Mapping[str, Any]) -> Any:
        """The value in the arguments of a call of `final_result`. Raises ValueError as `read`."""
        from pydantic_core import to_json

        return self.read(to_json(dict(given)).decode())

    def dump(self, value: Any) -> str:
        """The value as the JSON text of an answer, in the shape of the schema, for `read`."""
        given = {_KEY: value} if self._wrapped else value
        return self._adapter.dump_json(given, by_alias=True, round_trip=True).decode()

    def jsonable(self, value: Any) -> Any:
        """The value as JSON values, without wrapping."""
        given = {_KEY: value} if self._wrapped else value
        return self._bare(
            self._adapter.dump_python(given, mode="json", by_alias=True, round_trip=True)
        )

    def _bare(self, value: Any) -> Any:
        return value[_KEY] if self._wrapped else value


def output_of(kind: Any) -> Output:
    """What asks a model for a type: models, dataclasses, typed dicts, lists, unions, enums, …

    The first use imports the model library, which takes a while: await `prepare_output` where a
    loop runs. Raises InvalidInput for what is no type, and for types that no schema can say.
    """
    found = _known.get(kind)
    return found if found is not None else _known.keep(kind, _made(kind))


async def prepare_output(kind: Any) -> Output:
    """The same; what is not known yet is made on a thread. Raises InvalidInput."""
    found = _known.get(kind)
    return found if found is not None else await in_thread(lambda: output_of(kind))


class _Known:
    """The outputs that were made, by type; a type that cannot be hashed is made each time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: dict[Any, Output] = {}

    def get(self, kind: Any) -> Output | None:
        try:
            return self._made.get(kind)
        except TypeError:
            return None

    def keep(self, kind: Any, made: Output) -> Output:
        with self._lock:
            try:
                kept = self._made.setdefault(kind, made)
            except TypeError:
                return made
            while len(self._made) > MAX_KNOWN:
                del self._made[next(iter(self._made))]
            return kept


_known = _Known()


def _made(kind: Any) -> Output:
    if not (isinstance(kind, type) or get_origin(kind) or type(kind).__module__ in _TYPING):
        raise InvalidInput(
            f"an answer cannot be asked for as {type(kind).__name__}; pass a type, such as a "
            "pydantic model, a dataclass or list[str]"
        )
    from pydantic import TypeAdapter
    from pydantic_ai.tools import GenerateToolJsonSchema

    try:
        adapter: TypeAdapter[Any] = TypeAdapter(kind)
        schema = _resolved(adapter.json_schema(schema_generator=GenerateToolJsonSchema))
        wrapped = schema.get("type") != "object" or "properties" not in schema
        name, said = schema.pop("title", None), schema.pop("description", None)
        if wrapped:
            adapter = _wrapping(kind)
            schema = adapter.json_schema(schema_generator=GenerateToolJsonSchema)
            schema.pop("title", None)
    except Exception as error:
        raise InvalidInput(
            f"{kind!r} cannot be described to a model as an answer: {unlinked(error)}"
        ) from error
    named = _NO_NAME.sub("_", str(name or getattr(kind, "__name__", ""))).strip("_")[:64]
    spec = OutputSpec(named or FINAL_RESULT, str(said or ""), schema)
    return Output(spec, adapter, wrapped=wrapped)


def _wrapping(kind: Any) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter
    from typing_extensions import TypedDict

    return TypeAdapter(cast("Any", TypedDict)("Answer", {_KEY: kind}))


def _resolved(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema itself, where it only points to one of its definitions."""
    pointer, _, name = str(schema.get("$ref", "")).rpartition("/")
    if pointer != "#/$defs":
        return schema
    return {**schema["$defs"][name], **{k: v for k, v in schema.items() if k != "$ref"}}


def _unfenced(text: str) -> str:
    text = text.strip().removeprefix("\ufeff")
    fenced = None if text.startswith(_JSON_BEGINS) else _FENCE.search(text)
    return text if fenced is None else fenced[1].strip()


def _wrapped(text: str) -> str:
    """The text, wrapped if a model left the wrapping out."""
    from pydantic_core import from_json

    try:
        found = from_json(text)
    except ValueError:
        return text  # the validation says what is wrong with it
    if isinstance(found, dict) and set(cast("dict[str, Any]", found)) == {_KEY}:
        return text
    return f'{{"{_KEY}":{text}}}'
