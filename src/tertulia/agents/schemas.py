"""What a model is told of a function, and its arguments as the function wants them.

Schema, docstring and validation are pydantic-ai's, which takes long to import: nothing here is
called before a tool is needed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Union, cast, get_args, get_origin, get_type_hints

import msgspec

from tertulia.agents.context import RunContext
from tertulia.errors import InvalidInput

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import SchemaValidator

MAX_PROBLEMS = 5
"""What a model is told to put right at once."""
_MAX_PROBLEM = 200
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_SAID_BY_PYTHON = ("Value error, ", "Assertion failed, ")


class Shape(msgspec.Struct, frozen=True):
    """What is known of a function's arguments."""

    parameters: dict[str, Any]
    """The JSON Schema of the arguments, which are an object."""
    description: str
    contexts: tuple[str, ...]
    """The parameters that get the RunContext."""
    positional: tuple[str, ...]
    """The parameters that cannot be passed by name."""
    validator: Any

    def arguments(
        self, given: Mapping[str, Any], context: RunContext
    ) -> tuple[list[Any], dict[str, Any]]:
        """What the function is called with, by position and by name.

        Raises ValueError, which names what is wrong, for arguments that do not fit.
        """
        from pydantic_core import to_json

        validator = cast("SchemaValidator", self.validator)
        named = cast("dict[str, Any]", validated(lambda: validator.validate_json(to_json(given))))
        named.update(dict.fromkeys(self.contexts, context))
        return [named.pop(name) for name in self.positional], named


def signature_of(function: Callable[..., Any], name: str) -> inspect.Signature:
    """The parameters that a call may fill; what a partial has bound is not among them.

    Raises InvalidInput for a function whose parameters have no names.
    """
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):
        raise InvalidInput(
            f"the parameters of tool {name!r} are not known to Python; wrap it in a function"
        ) from None
    bound = function.keywords if isinstance(function, partial) else {}
    kept = [each for each in signature.parameters.values() if each.name not in bound]
    for parameter in kept:
        if parameter.kind in _VARIADIC:
            raise InvalidInput(
                f"tool {name!r} takes *{parameter.name}, which a model cannot be told of; "
                "name every parameter"
            )
    return signature.replace(parameters=kept)


def shape_of(function: Callable[..., Any], name: str) -> Shape:
    """The shape of a function; raises InvalidInput for what no schema can say."""
    from pydantic_ai import Tool as Described

    parameters = signature_of(function, name).parameters
    target = written_as(function)
    hints = _hints(target, parameters, name)
    contexts = tuple(each for each in parameters if _is_context(hints.get(each)))
    told = [each for key, each in parameters.items() if key not in contexts]
    _check_bound(told, hints, name)
    stand_in = _stand_in(told, hints, name, _documentation(function, target))
    try:
        made = Described(stand_in, takes_ctx=False, name=name)
    except Exception as error:
        raise InvalidInput(
            f"tool {name!r} cannot be described to a model: {unlinked(error)}"
        ) from error
    positional = tuple(key for key, each in parameters.items() if each.kind is each.POSITIONAL_ONLY)
    schema = dict(made.function_schema.json_schema)
    schema.setdefault("required", [])
    validator = made.function_schema.validator
    return Shape(schema, made.description or "", contexts, positional, validator)


def written_as(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function that somebody wrote, inside of partials, decorators, methods and objects."""
    while True:
        if isinstance(function, partial):
            function = function.func
        elif hasattr(function, "__wrapped__"):
            function = cast("Any", function).__wrapped__
        elif inspect.isroutine(function) or isinstance(function, type):
            return function
        else:
            function = type(function).__call__


def validated(validate: Callable[[], Any]) -> Any:
    """What a validation gives; raises ValueError with a text that says what to put right."""
    from pydantic import ValidationError

    try:
        return validate()
    except ValidationError as error:
        raise ValueError(_problems(error)) from None


def unlinked(error: Exception) -> str:
    """What an error of the library says first, without the advice and the links after it."""
    return str(error).split("\n", 1)[0].split(". Set `", 1)[0].strip() or type(error).__name__


def _problems(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_context=False, include_input=False)
    told = [_problem(each["loc"], each["msg"]) for each in found[:MAX_PROBLEMS]]
    more = len(found) - len(told)
    return "; ".join(told) + (f"; and {more} more" if more else "")


def _problem(place: tuple[int | str, ...], message: str) -> str:
    """One problem; steps of the validator itself are not part of a place in JSON."""
    for prefix in _SAID_BY_PYTHON:
        message = message.removeprefix(prefix)
    steps = [str(step) for step in place if not {"[", "("} & set(str(step))]
    return (f"{'.'.join(steps)}: {message}" if steps else message)[:_MAX_PROBLEM]


def _hints(
    target: Callable[..., Any], parameters: Mapping[str, inspect.Parameter], name: str
) -> dict[str, Any]:
    """The hints of the parameters, with the names in them looked up where they were written.

    RunContext may be imported for type checkers only.
    """

    def holder() -> None: ...

    holder.__annotations__ = {
        each.name: each.annotation
        for each in parameters.values()
        if each.annotation is not each.empty
    }
    try:
        return _looked_up(holder, getattr(target, "__globals__", {}))
    except Exception as error:
        raise InvalidInput(
            f"the type hints of tool {name!r} cannot be read: {error}; they must be names of its "
            "module when it runs, not for type checkers only"
        ) from error


def _looked_up(hints: Callable[[], None], known: dict[str, Any]) -> dict[str, Any]:
    try:
        return get_type_hints(hints, known, include_extras=True)
    except NameError as error:
        if error.name != RunContext.__name__:
            raise
        local = {RunContext.__name__: RunContext}
        return get_type_hints(hints, known, local, include_extras=True)


def _check_bound(told: Sequence[inspect.Parameter], hints: Mapping[str, Any], name: str) -> None:
    if told and told[0].name in ("self", "cls") and told[0].name not in hints:
        raise InvalidInput(
            f"tool {name!r} is a method without its object; pass it from one, "
            f"as in tools=[thing.{name}]"
        )


def _is_context(hint: Any) -> bool:
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    if get_origin(hint) in (Union, UnionType):
        return any(_is_context(each) for each in get_args(hint))
    return hint is RunContext


def _stand_in(
    parameters: list[inspect.Parameter], hints: Mapping[str, Any], name: str, said: str | None
) -> Callable[..., None]:
    """A function with these parameters, their hints looked up, and nothing else to be read.

    A lone model is marked as an argument: the library would take its fields for the arguments.
    """

    def stand_in(**given: Any) -> None: ...

    marked = {key: Annotated[hint, "argument"] for key, hint in hints.items()}
    kept = [
        each.replace(kind=each.KEYWORD_ONLY, annotation=marked.get(each.name, each.empty))
        for each in parameters
    ]
    stand_in.__name__ = stand_in.__qualname__ = name
    stand_in.__doc__ = said
    stand_in.__annotations__ = {each.name: marked[each.name] for each in kept if each.name in hints}
    cast("Any", stand_in).__signature__ = inspect.Signature(kept)
    return stand_in


def _documentation(function: Callable[..., Any], target: Callable[..., Any]) -> str | None:
    """What is said of the function, else of the kind of object that is called."""
    said = inspect.getdoc(target)
    if said is None and not isinstance(function, partial):
        said = inspect.getdoc(type(function)) if not inspect.isroutine(function) else None
    return said
