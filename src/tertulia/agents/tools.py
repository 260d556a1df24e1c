"""Tools: functions that a model may call."""

from __future__ import annotations

import asyncio
import copy
import inspect
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from contextvars import copy_context
from functools import partial, update_wrapper
from types import MethodType
from typing import Any, Generic, ParamSpec, TypeVar, cast, overload

from tertulia.agents.context import RunContext
from tertulia.agents.protocol import ToolSpec
from tertulia.agents.results import text_of
from tertulia.agents.schemas import Shape, shape_of, signature_of
from tertulia.closing import Effect
from tertulia.doors import Outcome
from tertulia.errors import InvalidInput, ToolError

P = ParamSpec("P")
R = TypeVar("R")


class _Usual(float):
    """The timeout of a tool that names none."""


TIMEOUT = _Usual(30.0)
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Tool(Generic[P, R]):
    """A function with a name, a description and a schema; calling it calls the function.

    `effect` says what a call may do in the world: ``"none"`` (it only reads), ``"idempotent"``
    (the same however often it runs) or ``"unknown"``. `timeout` is in seconds; None waits for
    ever. With `requires_approval` a call waits until somebody approves it. Raises InvalidInput
    for a function that no model could call; what its type hints cannot say is found by `prepare`.
    """

    def __init__(
        self,
        function: Callable[P, R],
        *,
        name: str | None = None,
        description: str | None = None,
        timeout: float | None = TIMEOUT,
        effect: Effect = "unknown",
        requires_approval: bool = False,
    ) -> None:
        if not callable(function):
            raise InvalidInput(f"{function!r} is no function, so it cannot be a tool")
        self.name = _name(function) if name is None else name
        if _NAME.fullmatch(self.name) is None:
            raise InvalidInput(
                f"{self.name!r} cannot name a tool; pass name= with 1 to 64 letters, digits, _ or -"
            )
        if timeout is not None and not timeout > 0:
            raise InvalidInput(f"the timeout of tool {self.name!r} must be more than 0 seconds")
        signature_of(function, self.name)
        self.function = function
        self.timeout = timeout
        self.effect: Effect = effect
        self.requires_approval = requires_approval
        self._description = description
        self._made: tuple[ToolSpec, Shape] | None = None
        update_wrapper(self, function, updated=())

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(*args, **kwargs)

    @overload
    def __get__(self, instance: None, owner: type[Any]) -> Tool[P, R]: ...

    @overload
    def __get__(self, instance: object, owner: type[Any] | None = None) -> Tool[..., R]: ...

    def __get__(self, instance: object | None, owner: type[Any] | None = None) -> Tool[..., R]:
        if instance is None or not inspect.isfunction(self.function):
            return self
        bound = cast("Tool[..., R]", copy.copy(self))
        bound.function = MethodType(self.function, instance)
        bound._made = None
        update_wrapper(bound, bound.function, updated=())
        return bound

    def __repr__(self) -> str:
        return f"Tool({self.name!r})"

    @property
    def prepared(self) -> bool:
        """Whether its schema is known already, so that `spec` costs nothing."""
        return self._made is not None

    @property
    def spec(self) -> ToolSpec:
        """The tool as a model sees it.

        The first use imports the model library, which takes a while: await `prepare` where a
        loop runs. Raises InvalidInput for type hints that no schema can say.
        """
        return self._described()[0]

    async def invoke(
        self, given: Mapping[str, Any], context: RunContext, limit: float | None = None
    ) -> str:
        """Call it as a model asks for it; the result as text, which is never empty.

        `limit` is the timeout in seconds where the tool names none.

        Raises ToolError for bad arguments, a timeout and a result that is no JSON or too long;
        else what the function raises.
        """
        await prepare((self,))
        try:
            positional, named = self._described()[1].arguments(given, context)
        except ValueError as error:
            raise ToolError(f"bad arguments: {error}") from None
        own = self.timeout
        usual = own is None or isinstance(own, _Usual)
        seconds = limit if usual and limit is not None else own
        deadline = asyncio.timeout(seconds)
        try:
            async with deadline:
                return await self._call(partial(self.function, *positional, **named))
        except TimeoutError as error:
            if not deadline.expired():
                raise
            raise ToolError(f"no result after {seconds:g} seconds; {self._left()}") from error
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise ToolError("the tool cancelled itself") from error

    async def _call(self, call: Callable[[], Any]) -> str:
        if _is_async(self.function):
            return text_of(await call())

        def work() -> Any:
            value = call()
            return value if inspect.isawaitable(value) else text_of(value)

        given = await in_thread(work)
        return text_of(await given) if inspect.isawaitable(given) else given

    def _left(self) -> str:
        """What a model is told of a call that took too long: a thread cannot be stopped."""
        if _is_async(self.function):
            return "the tool was stopped; what it had done by then stays done"
        return (
            "the tool may still be running, so its outcome is unknown: "
            "do not call it again before you know what it did"
        )

    def _described(self) -> tuple[ToolSpec, Shape]:
        if self._made is None:
            shape = shape_of(self.function, self.name)
            said = shape.description if self._description is None else self._description
            self._made = (ToolSpec(self.name, said, shape.parameters), shape)
        return self._made


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
    requires_approval: bool = False,
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
    requires_approval: bool = False,
) -> Tool[P, R] | Callable[[Callable[P, R]], Tool[P, R]]:
    """Make a tool of a function, sync or async: ``@tool`` or ``@tool(read_only=True)``.

    Its name, description and schema come from the function, its docstring and type hints.
    `idempotent` and `read_only` say that it may safely run again: a turn that fails after such
    tools only leaves no trace in the history. With `requires_approval` a call waits until
    somebody approves it. Raises InvalidInput.
    """
    implied: Effect = "none" if read_only else "idempotent" if idempotent else "unknown"

    def make(wrapped: Callable[P, R]) -> Tool[P, R]:
        return Tool(
            wrapped,
            name=name,
            description=description,
            timeout=timeout,
            effect=effect or implied,
            requires_approval=requires_approval,
        )

    return make if function is None else make(function)


AnyTool = Tool[..., Any]


async def prepare(tools: Iterable[AnyTool]) -> list[ToolSpec]:
    """The tools as a model sees them; schemas that are not known yet are made on a thread.

    Raises InvalidInput, which names the tool, for type hints that no schema can say.
    """
    given = list(tools)
    if all(each.prepared for each in given):
        return [each.spec for each in given]
    return await in_thread(lambda: [each.spec for each in given])


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


def _name(function: Callable[..., Any]) -> str:
    while isinstance(function, partial):
        function = function.func
    return str(getattr(function, "__name__", type(function).__name__))


def _is_async(function: Callable[..., Any]) -> bool:
    called = cast("Any", type(function).__call__)
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called)
