"""The tools of a node, called as a model asks for them."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, cast

from tertulia.compat.atoms.clients.types import ToolCall, ToolResult
from tertulia.compat.atoms.handoffs import Handoff, noted
from tertulia.compat.atoms.tools.decorator import FunctionToolInfo, find_function_tools, info_of
from tertulia.errors import InvalidInput, ToolError
from tertulia.wire.events import AgentLog

log = logging.getLogger(__name__)


class ToolRegistry:
    """Tools by name.

    With an owner, which is a node, every call is told by it as `agent.log`: ``tool_call_start``,
    then ``tool_call_end`` or ``tool_call_error``, also when the call is interrupted. Synchronous
    tools run on the event loop, so that they may use what belongs to its thread; what takes long
    in them holds up the loop.
    """

    def __init__(self) -> None:
        self._tools: dict[str, FunctionToolInfo] = {}
        self._owner: Any = None

    def set_owner(self, owner: Any) -> None:
        """The node that tells of the calls; None tells of none."""
        self._owner = owner

    def register(self, func_or_info: Callable[..., Any] | FunctionToolInfo) -> None:
        """Take a marked function; one of the same name is replaced. Raises InvalidInput."""
        given = isinstance(func_or_info, FunctionToolInfo)
        info = func_or_info if given else info_of(func_or_info)
        if info is None:
            raise InvalidInput(f"{func_or_info!r} is no tool; decorate it with @function_tool")
        self._tools[info.name] = info

    def discover(self, obj: Any) -> None:
        """Take every marked method of an object, which becomes the owner."""
        self.set_owner(obj)
        for function in find_function_tools(obj):
            self.register(function)

    def get_schemas(self) -> list[dict[str, Any]]:
        """The tools as OpenAI's chat completions take them. Raises InvalidInput."""
        schemas = (info.schema for info in self._tools.values())
        return [
            {
                "type": "function",
                "function": {
                    "name": each.name,
                    "description": each.description,
                    "parameters": each.parameters,
                },
            }
            for each in schemas
        ]

    async def execute(
        self, tool_calls: Sequence[ToolCall], context: Any = None, parallel: bool = True
    ) -> list[ToolResult]:
        """Call the tools; the results in the order of the calls.

        What goes wrong (a tool raises, is not known, or does not get the arguments it needs) is a
        result with `is_error`. Arguments that a tool does not have are dropped. `context` is not
        used.
        """
        if not parallel:
            return [await self._call(call) for call in tool_calls]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._call(call)) for call in tool_calls]
        return [task.result() for task in tasks]

    async def _call(self, call: ToolCall) -> ToolResult:
        run = _Run(call)
        try:
            info = self._tools.get(call.name)
            if info is None:
                raise ToolError(f"Unknown tool: {call.name}")
            run.arguments = _arguments(call.arguments)
            await self._tell("tool_call_start", run.started())
            content, response = await _result(info.function, run.arguments)
        except asyncio.CancelledError:
            await self._tell("tool_call_error", run.failed("interrupted"))
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return ToolResult(call.id, call.name, "the tool cancelled itself", is_error=True)
        except Exception as error:
            said = str(error) or type(error).__name__
            await self._tell("tool_call_error", run.failed(said))
            return ToolResult(call.id, call.name, said, is_error=True)
        await self._tell("tool_call_end", run.ended(response))
        return ToolResult(call.id, call.name, content)

    async def _tell(self, name: str, payload: dict[str, Any]) -> None:
        if self._owner is None or not hasattr(self._owner, "send_event"):
            return
        try:
            await self._owner.send_event(AgentLog(name=name, payload=payload))
        except Exception as error:
            log.warning("%s could not be told of: %s", name, error)


class _Run:
    """What is told of one call."""

    def __init__(self, call: ToolCall) -> None:
        self._call = call
        self._since = monotonic()
        self.arguments: dict[str, Any] = {}

    def started(self) -> dict[str, Any]:
        return {
            "turn_id": "",
            "tool_call_id": self._call.id,
            "function_name": self._call.name,
            "context": {"arguments": self.arguments},
        }

    def ended(self, response: Any) -> dict[str, Any]:
        told = self.started()
        if response is not None:
            told["context"]["response"] = response
        latency = int((monotonic() - self._since) * 1_000)
        return {**told, "latency": latency, "success": True}

    def failed(self, error: str) -> dict[str, Any]:
        return {**self.started(), "error": error, "success": False}


def _arguments(given: Any) -> dict[str, Any]:
    """The arguments of a call; models send no text at all where there are none."""
    value: Any = json.loads(given or "{}") if isinstance(given, str | None) else given
    if not isinstance(value, dict):
        raise ToolError(f"the arguments are no JSON object: {given!r}")
    return cast("dict[str, Any]", value)


async def _result(function: Callable[..., Any], given: dict[str, Any]) -> tuple[str, Any]:
    """What a call gives, as text for the model and as JSON for the note on it."""
    handoffs: list[Handoff] = []
    token = noted.set(handoffs)
    try:
        positional, named = _matched(function, given)
        value = function(*positional, **named)
        if inspect.isawaitable(value):
            value = await value
    finally:
        noted.reset(token)
    try:
        content = json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        content = json.dumps(str(value))
        return str(value), json.loads(content)
    return content, handoffs[-1] if value is None and handoffs else json.loads(content)


def _matched(
    function: Callable[..., Any], given: dict[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """The arguments by position and by name, without those that the function does not have."""
    parameters = inspect.signature(function).parameters
    if any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
        return [], dict(given)
    known = {name: given[name] for name in parameters if name in given}
    first = [name for name in known if parameters[name].kind is inspect.Parameter.POSITIONAL_ONLY]
    return [known.pop(name) for name in first], known
