"""The mark of functions that a model may call."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cached_property
from typing import Any, TypeVar, overload

from tertulia.compat.atoms.tools.schema import FunctionSchema, schema_of

F = TypeVar("F", bound=Callable[..., Any])
_MARK = "__tool_info__"


class FunctionToolInfo:
    """A function that a model may call, with the name and the description that it is told."""

    def __init__(
        self, function: Callable[..., Any], name: str | None = None, description: str | None = None
    ) -> None:
        self.function = function
        self.name = name or function.__name__
        self._description = description

    @property
    def description(self) -> str:
        """What the model is told of it: what was given, else its docstring."""
        return self.schema.description

    @cached_property
    def schema(self) -> FunctionSchema:
        """What the model is told; raises InvalidInput for parameters that cannot be told."""
        return schema_of(self.function, self.name, self._description)

    def bound(self, function: Callable[..., Any]) -> FunctionToolInfo:
        """The same of a method of an object."""
        return FunctionToolInfo(function, self.name, self._description)


@overload
def function_tool(name: F, /) -> F: ...


@overload
def function_tool(name: str | None = None, description: str | None = None) -> Callable[[F], F]: ...


def function_tool(
    name: Callable[..., Any] | str | None = None, description: str | None = None
) -> Any:
    """Mark a function or a method, sync or async, that a model may call.

    ``@function_tool`` or ``@function_tool(name=…, description=…)``; the function stays what it
    is. Its schema comes from its type hints and its docstring.
    """
    if callable(name):
        return function_tool()(name)

    def mark(function: F) -> F:
        setattr(function, _MARK, FunctionToolInfo(function, name, description))
        return function

    return mark


loopback_tool = function_tool


def info_of(function: Any) -> FunctionToolInfo | None:
    """What the mark of a function says, for a method bound to its object; None without a mark."""
    info = getattr(function, _MARK, None)
    if not isinstance(info, FunctionToolInfo):
        return None
    return info.bound(function) if inspect.ismethod(function) else info


def is_function_tool(func: Any) -> bool:
    """Whether it was marked."""
    return info_of(func) is not None


def find_function_tools(obj: Any) -> list[Callable[..., Any]]:
    """The marked methods of an object, in the order in which they are defined.

    Properties of the object are not read.
    """
    names = dict.fromkeys(name for kind in reversed(type(obj).__mro__) for name in vars(kind))
    found = (name for name in names if is_function_tool(inspect.getattr_static(obj, name, None)))
    own = (name for name, each in getattr(obj, "__dict__", {}).items() if is_function_tool(each))
    return [getattr(obj, name) for name in dict.fromkeys((*found, *own))]
