"""Tools: what a model is told of them, how they are called, and what goes wrong with them."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from datetime import date
from enum import Enum
from typing import Any, cast

import pydantic
import pytest
from tests.agents.tool_calls import call, failure, print_nothing

from tertulia import Agent, Runtime, ToolCall, tool
from tertulia.agents import RunContext, Tool
from tertulia.agents.protocol import ToolCallMade
from tertulia.agents.tools import tools_of
from tertulia.errors import InvalidInput
from tertulia.testing.models import ScriptedModel


class Color(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Point:
    x: int
    y: int = 0


class Item(pydantic.BaseModel):
    name: str
    count: int = pydantic.Field(default=1, ge=1)


class Basket(pydantic.BaseModel):
    items: list[Item]


def test_what_no_model_could_call_is_refused_when_it_is_made() -> None:
    with pytest.raises(InvalidInput, match=r"'many' takes \*values.*name every parameter"):

        @tool
        def many(*values: int) -> None: ...

    with pytest.raises(InvalidInput, match="takes \\*more"):
        tools_of([lambda_with_more])
    with pytest.raises(InvalidInput, match="1 to 64"):
        tool(name="two words")(len)
    with pytest.raises(InvalidInput, match="pass name="):
        tool(lambda: None)
    with pytest.raises(InvalidInput, match="'print_nothing' must be more than 0"):
        tool(timeout=0)(print_nothing)
    with pytest.raises(InvalidInput, match="is no function"):
        tool(cast("Any", 3))
    with pytest.raises(InvalidInput, match="'iter' are not known to Python"):
        tool(iter)


def lambda_with_more(**more: int) -> None: ...


def test_tools_are_given_as_functions_tools_and_nested_lists() -> None:
    made = tool(print_nothing)
    assert list(tools_of([[made, [made]], and_another])) == ["print_nothing", "and_another"]
    with pytest.raises(InvalidInput, match="two tools"):
        tools_of([made, tool(print_nothing)])
    with pytest.raises(InvalidInput, match="is no tool"):
        tools_of([3])


def and_another() -> None:
    """Do nothing again."""


def test_what_a_tool_may_do_is_part_of_it() -> None:
    assert tool(print_nothing).effect == "unknown"
    assert tool(idempotent=True)(print_nothing).effect == "idempotent"
    assert tool(read_only=True)(print_nothing).effect == "none"
    assert tool(effect="none", idempotent=True)(print_nothing).effect == "none"
    assert not tool(print_nothing).requires_approval
    assert tool(requires_approval=True)(print_nothing).requires_approval
    assert Tool(print_nothing, requires_approval=True).requires_approval


async def test_arguments_are_converted_to_what_the_function_wants(runtime: Runtime) -> None:
    got: list[Any] = []

    def take(point: Point, color: Color, basket: Basket, day: date, number: int) -> None:
        got.extend((point, color, basket, day, number))

    await call(
        runtime,
        take,
        {
            "point": {"x": 1},
            "color": "red",
            "basket": {"items": [{"name": "tea"}]},
            "day": "2026-01-02",
            "number": "3",
        },
    )
    basket = Basket(items=[Item(name="tea", count=1)])
    assert got == [Point(1, 0), Color.RED, basket, date(2026, 1, 2), 3]


async def test_a_tool_that_raises_becomes_a_result_that_the_model_reads(runtime: Runtime) -> None:
    def broken() -> None:
        raise LookupError("no such order")

    told, audited = await failure(runtime, broken, {})
    assert told == "Error: LookupError: no such order"
    assert audited == "LookupError: no such order"


async def test_an_unknown_tool_becomes_a_result_that_names_the_known_ones(
    runtime: Runtime,
) -> None:
    told, _ = await failure(runtime, print_nothing, {}, "print_something")
    assert told == "Error: there is no tool 'print_something'; there are: print_nothing"


@pytest.mark.parametrize(
    "arguments", [{}, {"count": "many"}, {"count": 1, "more": 2}, {"count": None}]
)
async def test_bad_arguments_become_a_result_that_says_what_is_wrong(
    runtime: Runtime, arguments: dict[str, Any]
) -> None:
    def take(count: int) -> None: ...

    told, _ = await failure(runtime, take, arguments)
    assert told.startswith("Error: bad arguments: ")


async def test_a_pydantic_argument_that_does_not_validate_is_told(runtime: Runtime) -> None:
    def take(item: Item) -> None: ...

    told, _ = await failure(runtime, take, {"item": {"name": "tea", "count": 0}})
    assert "greater than or equal to 1" in told


async def test_malformed_arguments_are_told_and_the_tool_does_not_run(runtime: Runtime) -> None:
    ran: list[int] = []
    made = ToolCallMade(ToolCall("c", "run", {"INVALID_JSON": "{a"}), "{a")

    def run() -> None:
        ran.append(1)

    agent = Agent(model=ScriptedModel([made], "Sorry."), tools=[run], runtime=runtime)
    response = await agent.session().run_async("Go")
    assert "no JSON object: {a" in response.messages[2].text
    assert ran == []


async def test_a_tool_that_takes_too_long_is_stopped_and_the_model_is_told_so(
    runtime: Runtime,
) -> None:
    @tool(timeout=0.01)
    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.append(1)

    stopped: list[int] = []
    told, audited = await failure(runtime, slow, {})
    assert stopped == [1]
    assert told == (
        "Error: no result after 0.01 seconds; "
        "the tool was stopped; what it had done by then stays done"
    )
    assert told == f"Error: {audited}"


async def test_a_synchronous_tool_that_hangs_holds_up_nobody(runtime: Runtime) -> None:
    release = threading.Event()

    @tool(timeout=0.01)
    def hang() -> None:
        release.wait(10)

    told, _ = await failure(runtime, hang, {})
    assert not release.is_set()
    release.set()
    assert told.startswith("Error: no result after 0.01 seconds; ")


async def test_the_outcome_of_a_synchronous_tool_that_took_too_long_is_told_as_unknown(
    runtime: Runtime,
) -> None:
    release, done = threading.Event(), threading.Event()

    @tool(timeout=0.01)
    def pay() -> None:
        release.wait(10)
        done.set()

    told, audited = await failure(runtime, pay, {})
    assert told == (
        "Error: no result after 0.01 seconds; the tool may still be running, so its outcome is "
        "unknown: do not call it again before you know what it did"
    )
    assert told == f"Error: {audited}"
    release.set()
    assert done.wait(10)


async def test_a_time_limit_of_the_tools_own_is_told_as_its_error(runtime: Runtime) -> None:
    async def ask() -> None:
        raise TimeoutError("the shop does not answer")

    def hurry() -> None:
        raise TimeoutError

    told, _ = await failure(runtime, ask, {})
    assert told == "Error: TimeoutError: the shop does not answer"
    assert (await failure(runtime, hurry, {}))[0] == "Error: TimeoutError"


async def test_a_tool_that_cancels_itself_is_an_error_of_the_tool_only(runtime: Runtime) -> None:
    async def wait() -> None:
        task = asyncio.ensure_future(asyncio.Event().wait())
        task.cancel()
        await task

    told, _ = await failure(runtime, wait, {})
    assert told == "Error: the tool cancelled itself"


async def test_a_synchronous_tool_does_not_block_the_loop(runtime: Runtime) -> None:
    loop = asyncio.get_running_loop()
    ticked = threading.Event()

    def wait() -> bool:
        loop.call_soon_threadsafe(ticked.set)
        return ticked.wait(10)

    assert (await call(runtime, wait)).text == "true"


@pytest.mark.parametrize("text", ["\0" * 200_000, "🎉" * 255_000], ids=["control", "wide"])
async def test_a_result_that_is_too_large_to_be_stored_is_told(runtime: Runtime, text: str) -> None:
    def give() -> str:
        return text

    def give_more() -> dict[str, str]:
        return {"text": text}

    for function in (give, give_more):
        told, _ = await failure(runtime, function, {})
        assert told.startswith("Error: the result ")
        assert "; ask for less" in told


async def test_the_greatest_result_can_be_stored(runtime: Runtime) -> None:
    def give() -> str:
        return "\0" * 149_999

    assert (await call(runtime, give)).text == "\0" * 149_999


async def test_the_calls_of_a_round_run_in_parallel(runtime: Runtime) -> None:
    both = threading.Barrier(2)

    def meet() -> int:
        return both.wait(10)

    model = ScriptedModel([ToolCall("a", "meet"), ToolCall("b", "meet")], "Done.")
    session = Agent(model=model, tools=[meet], runtime=runtime).session()
    response = await session.run_async("Go")
    assert sorted(m.text for m in response.messages if m.role == "tool") == ["0", "1"]


async def test_calls_with_the_same_id_are_told_apart(runtime: Runtime) -> None:
    model = ScriptedModel([ToolCall("x", "print_nothing"), ToolCall("x", "print_nothing")], "Done.")
    session = Agent(model=model, tools=[print_nothing], runtime=runtime).session()
    response = await session.run_async("Go")
    assert len({call.id for call in response.tool_calls}) == 2


async def test_a_tool_reaches_session_state_and_key(runtime: Runtime) -> None:
    seen: list[RunContext] = []

    @tool
    def remember(context: RunContext, value: int) -> str:
        """Remember."""
        seen.append(context)
        context.state["kept"] = value
        return str(context.session.get_state("kept"))

    assert "context" not in remember.spec.parameters["properties"]
    model = ScriptedModel(ToolCall("c", "remember", {"value": 7}), "Done.")
    session = Agent("ann", model, tools=[remember], runtime=runtime).session("s")
    await session.run_async("Go", metadata={"who": "me"})
    assert session.get_state("kept") == 7
    context = seen[0]
    assert (context.agent, context.metadata) == ("ann", {"who": "me"})
    assert context.key.endswith(":2:c")
    assert context.cancelled


async def test_what_a_tool_sets_is_taken_back_when_the_turn_fails(runtime: Runtime) -> None:
    @tool(idempotent=True)
    async def remember(context: RunContext) -> None:
        """Remember."""
        context.state["kept"] = True

    model = ScriptedModel(ToolCall("c", "remember"), ValueError("broken model"))
    session = Agent(model=model, tools=[remember], runtime=runtime).session()
    with pytest.raises(ValueError, match="broken model"):
        await session.run_async("Go")
    assert session.get_state("kept") is None


async def test_a_tool_may_write_into_its_own_conversation(runtime: Runtime) -> None:
    @tool
    async def note(context: RunContext) -> str:
        """Note."""
        await context.session.send_message({"role": "user", "content": "from the tool"})
        return "noted"

    model = ScriptedModel(ToolCall("c", "note"), "Done.")
    session = Agent(model=model, tools=[note], runtime=runtime).session()
    assert (await session.run_async("Go")).text == "Done."
    roles = [message.role for message in await session.history()]
    assert roles == ["user", "assistant", "tool", "user", "assistant"]
