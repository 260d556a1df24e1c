"""Tools: functions that a model may call."""

from __future__ import annotations

import asyncio
import inspect
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from contextvars import copy_context
from functools import update_wrapper
from typing import Any, Generic, ParamSpec, TypeVar, cast, overload

from tertulia.agents.context import RunContext
from tertulia.agents.protocol import ToolSpec
from tertulia.agents.schemas import encode_result, shape_of
from tertulia.closing import Effect
from tertulia.doors import Outcome
from tertulia.errors import InvalidInput, ToolError

P = ParamSpec("P")
R = TypeVar("R")

TIMEOUT = 30.0
MAX_RESULT = 256_000
"""Characters of a result; a longer one is told to the model as an error."""
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Tool(Generic[P, R]):
    """A function with a name, a description and a schema; calling it calls the function.

    `effect` says what a call may do in the world: ``"none"`` (it only reads), ``"idempotent"``
    (the same however often it runs) or ``"unknown"``. `timeout` is in seconds; None waits for
    ever. Raises InvalidInput for a function that cannot be described to a model.
    """

    def __init__(
        self,
        function: Callable[P, R],
        *,
        name: str | None = None,
        description: str | None = None,
        timeout: float | None = TIMEOUT,
        effect: Effect = "unknown",
    ) -> None:
        self.name = name or getattr(function, "__name__", type(function).__name__)
        if _NAME.fullmatch(self.name) is None:
            raise InvalidInput(
                f"{self.name!r} cannot name a tool; use 1 to 64 letters, digits, _ or -"
            )
        if timeout is not None and timeout <= 0:
            raise InvalidInput(f"the timeout of tool {self.name!r} must be more than 0 seconds")
        self.function = function
        self.timeout = timeout
        self.effect: Effect = effect
        self._shape = shape_of(function, self.name, RunContext)
        said = self._shape.description if description is None else description
        self.spec = ToolSpec(self.name, said, self._shape.parameters)
        update_wrapper(self, function, updated=())

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"Tool({self.name!r})"

    async def invoke(self, given: Mapping[str, Any], context: RunContext) -> str:
        """Call it as a model asks for it; the result as text.

        Raises ToolError for bad arguments, a timeout and a result that is no JSON or too long;
        else what the function raises.
        """
        try:
            arguments = self._shape.arguments(given)
        except ValueError as error:
            raise ToolError(f"bad arguments: {error}") from None
        if self._shape.context is not None:
            arguments[self._shape.context] = context
        try:
            value = await asyncio.wait_for(self._call(arguments), self.timeout)
        except TimeoutError as error:
            raise ToolError(str(error) or f"no result after {self.timeout} seconds") from error
        try:
            text = encode_result(value)
        except TypeError as error:
            raise ToolError(f"the result cannot be shown: {error}") from None
        if len(text) > MAX_RESULT:
            raise ToolError(f"the result has {len(text)} characters, more than {MAX_RESULT}")
        return text

    async def _call(self, arguments: dict[str, Any]) -> Any:
        call = cast("Callable[..., Any]", self.function)

        def work() -> Any:
            positional, named = self._bind(arguments)
            return call(*positional, **named)

        if inspect.iscoroutinefunction(call):
            return await work()
        value = await in_thread(work)
        return await value if inspect.isawaitable(value) else value

    def _bind(self, arguments: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        named = dict(arguments)
        parameters = inspect.signature(self.function).parameters.values()
        positional = [
            named.pop(parameter.name)
            for parameter in parameters
            if parameter.kind is parameter.POSITIONAL_ONLY
        ]
        return positional, named


async def in_thread(work: Callable[[], R]) -> R:
    """Call something on a thread of its own, with the context variables of the caller.

    A thread each: a pool would deadlock where tools call agents, and a tool that hangs would
    hold a place in it, and the exit of the process, for ever.
    """
    outcome: Outcome[R] = Outcome()
    context = copy_context()

    def target() -> None:
        try:
            outcome.set_result(context.run(work))
        except BaseException as error:
            outcome.set_error(error)

    threading.Thread(target=target, name="tertulia-tool", daemon=True).start()
    return await outcome


@overload
def tool(function: Callable[P, R], /) -> Tool[P, R]: ...


@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    timeout: float | None = TIMEOUT,
    effect: Effect | None = None,
    idempotent: bool = False,
    read_only: bool = False,
) -> Callable[[Callable[P, R]], Tool[P, R]]: ...


def tool(  # noqa: PLR0913
    function: Callable[P, R] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    timeout: float | None = TIMEOUT,
    effect: Effect | None = None,
    idempotent: bool = False,
    read_only: bool = False,
) -> Tool[P, R] | Callable[[Callable[P, R]], Tool[P, R]]:
    """Make a tool of a function, sync or async: ``@tool`` or ``@tool(read_only=True)``.

    Its name, description and schema come from the function, its docstring and type hints.
    `idempotent` and `read_only` say that it may safely run again: a turn that fails after such
    tools only leaves no trace in the history. Raises InvalidInput.
    """
    implied: Effect = "none" if read_only else "idempotent" if idempotent else "unknown"

    def make(wrapped: Callable[P, R]) -> Tool[P, R]:
        return Tool(
            wrapped,
            name=name,
            description=description,
            timeout=timeout,
            effect=effect or implied,
        )

    return make if function is None else make(function)


AnyTool = Tool[..., Any]


def tools_of(values: Iterable[Any] | None) -> dict[str, AnyTool]:
    """Tools by name, from functions, tools and nested lists. Raises InvalidInput."""
    found: dict[str, AnyTool] = {}
    for value in values or ():
        if isinstance(value, list | tuple):
            named = tools_of(cast("Iterable[Any]", value))
        elif isinstance(value, Tool):
            named = {cast("AnyTool", value).name: cast("AnyTool", value)}
        elif callable(value):
            made: AnyTool = Tool(value)
            named = {made.name: made}
        else:
            raise InvalidInput(f"{value!r} is no tool; pass functions, tools or lists of them")
        for name, each in named.items():
            if found.setdefault(name, each) is not each:
                raise InvalidInput(f"two tools are named {name!r}; rename one with @tool(name=…)")
    return found
