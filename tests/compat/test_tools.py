"""Tools under the names of the other SDK: what a model is told, and what becomes of its calls."""

from __future__ import annotations

import asyncio
import json
import threading
from enum import Enum
from typing import Annotated, Any, Literal, Optional

import pytest
from pydantic import BaseModel, Field

from tertulia.compat.atoms import (
    ToolCall,
    ToolRegistry,
    find_function_tools,
    function_tool,
    is_function_tool,
    loopback_tool,
)
from tertulia.compat.atoms.events import (
    SDKAgentEndCallEvent,
    SDKAgentLogEvent,
    SDKAgentTransferConversationEvent,
    SDKEvent,
    TransferOption,
    TransferOptionType,
    WarmTransferPrivateHandoffOption,
)
from tertulia.compat.atoms.handoffs import note
from tertulia.errors import InvalidInput


class Size(Enum):
    SMALL = "small"
    LARGE = "large"


class Address(BaseModel):
    """Where to send it."""

    street: str


class Unknown:
    """What JSON knows nothing of."""


class Shop:
    """A node, as far as tools need one."""

    def __init__(self) -> None:
        self.sent: list[SDKEvent] = []
        self.tools = ToolRegistry()
        self.tools.discover(self)

    async def send_event(self, event: SDKEvent) -> None:
        note(event)
        self.sent.append(event)

    def logged(self) -> list[tuple[str, dict[str, Any]]]:
        return [(e.name, e.payload) for e in self.sent if isinstance(e, SDKAgentLogEvent)]

    async def call(self, name: str, arguments: Any = "{}") -> tuple[str, bool]:
        [result] = await self.tools.execute([ToolCall("c1", name, arguments)])
        assert (result.tool_call_id, result.name) == ("c1", name)
        return result.content, result.is_error

    @function_tool()
    def price(self, item: str, count: int = 1) -> dict[str, Any]:
        """Say what things cost.

        Args:
            item: The thing.
            count: How many of it,
                one by default.

        Returns:
            The price.
        """
        return {"item": item, "count": count}

    @function_tool(name="stock", description="How many there are.")
    async def in_stock(self) -> None:
        return None

    @loopback_tool
    async def fail(self) -> None:
        raise RuntimeError("no {braces} harm")

    @function_tool
    async def hang(self) -> None:
        await asyncio.Event().wait()

    @function_tool
    def thread(self) -> str:
        return threading.current_thread().name

    @function_tool
    def shape(self) -> type:
        return Shop

    @function_tool
    async def leave(self) -> None:
        await self.send_event(SDKAgentEndCallEvent())

    @function_tool
    async def escalate(self) -> None:
        brief: Any = WarmTransferPrivateHandoffOption(type="prompt", prompt="Brief them.")
        options: Any = TransferOption(
            type=TransferOptionType.WARM_TRANSFER, private_handoff_option=brief
        )
        await self.send_event(
            SDKAgentTransferConversationEvent(
                transfer_call_number="+1555", transfer_options=options, on_hold_music="ringtone"
            )
        )

    @function_tool
    async def cancel_itself(self) -> None:
        raise asyncio.CancelledError

    def not_a_tool(self) -> None: ...


def parameters(function: Any) -> dict[str, Any]:
    """The schema of the parameters of one function."""
    registry = ToolRegistry()
    registry.register(function)
    [schema] = registry.get_schemas()
    return schema["function"]["parameters"]


# -- what a model is told


def test_a_schema_comes_from_the_hints_and_the_docstring() -> None:
    schema = Shop().tools.get_schemas()[0]
    assert schema == {
        "type": "function",
        "function": {
            "name": "price",
            "description": "Say what things cost.",
            "parameters": {
                "type": "object",
                "properties": {
                    "item": {"type": "string", "description": "The thing."},
                    "count": {
                        "type": "integer",
                        "description": "How many of it,\none by default.",
                    },
                },
                "required": ["item"],
            },
        },
    }


def test_a_name_and_a_description_that_are_given_win() -> None:
    function = Shop().tools.get_schemas()[1]["function"]
    assert (function["name"], function["description"]) == ("stock", "How many there are.")


def test_every_kind_of_hint_has_its_schema() -> None:
    @function_tool()
    def order(  # noqa: PLR0917
        a: float,
        b: Optional[str],  # noqa: UP045
        c: int | str,
        d: Literal["x", "y"],
        e: Size,
        f: Annotated[bool, Field(description="really?")],
        g: list[int],
        h: dict[str, int],
        i: tuple[str, ...],
        j: Address,
        k: Unknown,
        m: Any,
        title,  # pyright: ignore[reportMissingParameterType, reportUnknownParameterType]
        n: int | None = None,
        **rest: Any,
    ) -> None: ...

    told = parameters(order)
    assert told["required"] == ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "m", "title"]
    assert told["properties"] == {
        "a": {"type": "number"},
        "b": {"type": "string"},
        "c": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
        "d": {"type": "string", "enum": ["x", "y"]},
        "e": {"type": "string", "enum": ["small", "large"]},
        "f": {"type": "boolean", "description": "really?"},
        "g": {"type": "array", "items": {"type": "integer"}},
        "h": {"type": "object"},
        "i": {"type": "array", "items": {"type": "string"}},
        "j": {
            "type": "object",
            "description": "Where to send it.",
            "properties": {"street": {"type": "string"}},
            "required": ["street"],
        },
        "k": {"type": "string"},
        "m": {"type": "string"},
        "title": {"type": "string"},
        "n": {"type": "integer"},
    }


def test_tools_are_found_in_the_order_in_which_they_are_written() -> None:
    names = [function.__name__ for function in find_function_tools(Shop())]
    assert names[:3] == ["price", "in_stock", "fail"]
    assert "not_a_tool" not in names


def test_a_marked_function_stays_what_it_is() -> None:
    @function_tool
    def double(n: int) -> int:
        return 2 * n

    assert double(2) == 4
    assert is_function_tool(double)
    assert not is_function_tool(len)


def test_a_function_without_the_mark_is_refused() -> None:
    with pytest.raises(ValueError, match="decorate it with @function_tool"):
        ToolRegistry().register(len)
    with pytest.raises(InvalidInput):
        ToolRegistry().register(lambda: None)


# -- what becomes of calls


async def test_a_result_is_json_text_for_the_model() -> None:
    shop = Shop()
    assert await shop.call("price", '{"item": "tea"}') == ('{"item": "tea", "count": 1}', False)
    assert await shop.call("stock") == ("null", False)
    assert await shop.call("shape") == (str(Shop), False)


async def test_arguments_that_a_tool_does_not_have_are_dropped() -> None:
    assert await Shop().call("stock", '{"nothing": 1}') == ("null", False)


async def test_no_arguments_at_all_are_no_arguments() -> None:
    assert await Shop().call("stock", "") == ("null", False)


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("fail", "{}", "no {braces} harm"),
        ("nobody", "{}", "Unknown tool: nobody"),
        ("price", "{bad", "Expecting property name"),
        ("price", "[1]", "no JSON object"),
        ("price", "{}", "missing 1 required positional argument: 'item'"),
        ("cancel_itself", "{}", "cancelled itself"),
    ],
)
async def test_what_goes_wrong_is_a_result_that_says_so(
    name: str, arguments: str, said: str
) -> None:
    content, is_error = await Shop().call(name, arguments)
    assert said in content
    assert is_error


async def test_results_come_in_the_order_of_the_calls() -> None:
    first, second = asyncio.Event(), asyncio.Event()

    @function_tool
    async def slow() -> str:
        second.set()
        await first.wait()
        return "slow"

    @function_tool
    async def quick() -> str:
        await second.wait()
        first.set()
        return "quick"

    registry = ToolRegistry()
    registry.register(slow)
    registry.register(quick)
    results = await registry.execute([ToolCall("1", "slow", "{}"), ToolCall("2", "quick", "{}")])
    assert [result.to_message() for result in results] == [
        {"role": "tool", "tool_call_id": "1", "name": "slow", "content": '"slow"'},
        {"role": "tool", "tool_call_id": "2", "name": "quick", "content": '"quick"'},
    ]


async def test_calls_can_run_one_after_another() -> None:
    running: list[str] = []

    @function_tool
    async def work(name: str) -> None:
        running.append(f"+{name}")
        await asyncio.sleep(0)
        running.append(f"-{name}")

    registry = ToolRegistry()
    registry.register(work)
    calls = [ToolCall(name, "work", json.dumps({"name": name})) for name in "ab"]
    await registry.execute(calls, parallel=False)
    assert running == ["+a", "-a", "+b", "-b"]


async def test_a_synchronous_tool_runs_where_its_node_does() -> None:
    assert await Shop().call("thread") == (json.dumps(threading.current_thread().name), False)


# -- what is told of calls


async def test_a_call_is_told_when_it_starts_and_when_it_ends() -> None:
    shop = Shop()
    await shop.call("price", '{"item": "tea"}')
    started: dict[str, Any] = {
        "turn_id": "",
        "tool_call_id": "c1",
        "function_name": "price",
        "context": {"arguments": {"item": "tea"}},
    }
    (first, payload), (last, ended) = shop.logged()
    assert (first, payload) == ("tool_call_start", started)
    assert last == "tool_call_end"
    assert ended.pop("latency") >= 0
    context = {**started["context"], "response": {"item": "tea", "count": 1}}
    assert ended == {**started, "context": context, "success": True}


async def test_a_failure_is_told() -> None:
    shop = Shop()
    await shop.call("fail")
    assert [name for name, _ in shop.logged()] == ["tool_call_start", "tool_call_error"]
    assert shop.logged()[1][1]["error"] == "no {braces} harm"
    assert shop.logged()[1][1]["success"] is False


@pytest.mark.parametrize(("name", "arguments"), [("nobody", "{}"), ("price", "{bad")])
async def test_a_call_that_cannot_start_is_told_as_an_error_only(name: str, arguments: str) -> None:
    shop = Shop()
    await shop.call(name, arguments)
    assert [name for name, _ in shop.logged()] == ["tool_call_error"]


async def test_an_interrupted_call_is_told_as_an_error() -> None:
    shop = Shop()
    task = asyncio.ensure_future(shop.tools.execute([ToolCall("c1", "hang", "{}")]))
    while not shop.sent:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [name for name, _ in shop.logged()] == ["tool_call_start", "tool_call_error"]
    assert shop.logged()[1][1]["error"] == "interrupted"


async def test_a_tool_that_gives_nothing_but_hands_over_tells_what_it_did() -> None:
    shop = Shop()
    assert await shop.call("leave") == ("null", False)
    assert shop.logged()[-1][1]["context"]["response"] == {
        "status": "success",
        "action": "end_call",
    }
    assert await shop.call("escalate") == ("null", False)
    assert shop.logged()[-1][1]["context"]["response"] == {
        "status": "success",
        "action": "transfer_call",
        "transfer_number": "+1555",
        "transfer_type": "warm_transfer",
        "on_hold_music": "ringtone",
        "private_handoff": {"type": "prompt", "prompt": "Brief them."},
    }


async def test_what_cannot_be_told_does_not_spoil_the_call() -> None:
    class Broken:
        async def send_event(self, event: SDKEvent) -> None:
            raise ConnectionError

    registry = Shop().tools
    registry.set_owner(Broken())
    [result] = await registry.execute([ToolCall("c1", "stock", "{}")])
    assert not result.is_error
