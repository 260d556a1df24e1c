"""What a turn gives back: the response, its fields, and what it is not."""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from pydantic import BaseModel
from tests.agents.histories import check_whole

from tertulia import Agent, Runtime, tool
from tertulia.agents import Response, Usage
from tertulia.agents.protocol import Finished, TextDelta, UsageReport
from tertulia.errors import ModelError, TurnInterrupted, UsageError
from tertulia.testing.models import ScriptedModel, call


class Person(BaseModel):
    name: str
    age: int = 0

    def greeting(self) -> str:
        return f"I am {self.name}"


@dataclass
class Point:
    x: int
    text: str


@tool(read_only=True)
def look(place: str) -> str:
    """Look somewhere."""
    return f"nothing in {place}"


async def test_a_response_tells_all_of_its_turn(runtime: Runtime) -> None:
    first = [UsageReport(10, 1), call("look", place="x"), call("look", place="y")]
    model = ScriptedModel(first, [UsageReport(20, 2), "Nothing there."], "Next.")
    session = Agent("ann", model, tools=[look], runtime=runtime).session()
    response = await session.run_async("Look")
    assert str(response) == response.text == response.output == "Nothing there."
    assert [made.arguments["place"] for made in response.tool_calls] == ["x", "y"]
    assert [m.role for m in response.messages] == ["user", "assistant", "tool", "tool", "assistant"]
    assert response.messages == await check_whole(session)
    assert response.usage == Usage(2, 30, 3)
    assert response.usage.total_tokens == 33
    assert response.agent == "ann"
    assert response.pending == []
    assert response.latency >= 0
    assert {event.turn for event in await session.events(types="usage")} == {response.turn}
    second = await session.run_async("More")
    assert [m.text for m in second.messages] == ["More", "Next."]
    assert second.turn > response.turn
    assert second.tool_calls == []


async def test_what_is_done_to_a_response_changes_nothing_that_is_stored(
    runtime: Runtime,
) -> None:
    model = ScriptedModel(call("look", place="x"), "Nothing.")
    session = Agent("ann", model, tools=[look], runtime=runtime).session()
    response = await session.run_async("Look", idempotency_key="k")
    before = await session.history()
    response.tool_calls[0].arguments["place"] = "elsewhere"
    response.messages.clear()
    assert await session.history() == before
    again = await session.run_async("Look", idempotency_key="k")
    assert again.messages == before
    with pytest.raises(AttributeError):
        response.text = "other"  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("output", "fields"),
    [
        pytest.param(Person(name="Kim", age=7), {"name": "Kim", "age": 7}, id="pydantic"),
        pytest.param(Point(1, "of the point"), {"x": 1}, id="dataclass"),
        pytest.param({"x": 1, "items": [2]}, {"x": 1, "items": [2]}, id="dict"),
    ],
)
def test_the_fields_of_an_output_are_those_of_the_response(
    output: Any, fields: dict[str, Any]
) -> None:
    response = Response(text="json", output=output)
    assert {name: getattr(response, name) for name in fields} == fields
    assert response.text == "json"
    for missing in ("nothing", "_private", "__dunder__"):
        assert not hasattr(response, missing)
    with pytest.raises(AttributeError, match=type(output).__name__):
        _ = response.nothing


def test_the_methods_of_an_output_are_those_of_the_response() -> None:
    assert Response(text="json", output=Person(name="Kim")).greeting() == "I am Kim"


@pytest.mark.parametrize("output", ["text", None, 7, [1, 2]])
def test_an_output_without_fields_says_so(output: Any) -> None:
    with pytest.raises(AttributeError, match="no 'category'"):
        _ = Response(text="text", output=output).category


def test_a_response_is_copied_pickled_and_compared() -> None:
    response = Response(text="json", output=Person(name="Kim"), turn=3)
    for other in (
        copy.copy(response),
        copy.deepcopy(response),
        pickle.loads(pickle.dumps(response)),
    ):
        assert other == response
        assert other.name == "Kim"
    assert Response(text="a") != Response(text="b")
    decoded = msgspec.json.decode(msgspec.json.encode(Response(text="a", turn=2)), type=Response)
    assert decoded.text == "a"


async def test_a_response_of_a_synchronous_call_cannot_be_awaited() -> None:
    with pytest.raises(UsageError, match=r"run_async.*resume_async"):
        await Response(text="here already")


async def test_the_response_of_a_stream_is_there_at_its_end(runtime: Runtime) -> None:
    model = ScriptedModel("Hello there.", ModelError("it broke"), "Hello again.")
    session = Agent("ann", model, runtime=runtime).session()
    stream = session.stream_async("Hi")
    with pytest.raises(UsageError, match="has not ended"):
        _ = stream.response
    async for _ in stream:
        with pytest.raises(UsageError, match="has not ended"):
            _ = session.stream_async("other").response
    assert stream.response.messages == await session.history()
    failing = session.stream_async("Hi")
    with pytest.raises(ModelError):
        async for _ in failing:
            pass
    with pytest.raises(ModelError):
        _ = failing.response
    cut = session.stream_async("Hi")
    async for event in cut:
        if event.text:
            break
    await cut.cancel()
    with pytest.raises(TurnInterrupted):
        _ = cut.response


async def test_an_answer_that_was_cut_off_by_the_provider_says_so(runtime: Runtime) -> None:
    model = ScriptedModel([TextDelta("Half an"), Finished("length")], "All.")
    session = Agent(model=model, runtime=runtime).session()
    response = await session.run_async("Hi")
    assert response.messages[-1].metadata == {"finish_reason": "length"}
    assert (await session.run_async("Hi")).messages[-1].metadata is None


async def test_a_model_that_reports_usage_twice_counts_once(runtime: Runtime) -> None:
    model = ScriptedModel([UsageReport(5, 1), "Hi.", UsageReport(5, 2)])
    response = await Agent(model=model, runtime=runtime).session().run_async("Hi")
    assert response.usage == Usage(1, 5, 2)


async def test_a_turn_without_an_answer_is_an_answer_without_text(runtime: Runtime) -> None:
    session = Agent(model=ScriptedModel([], "Next."), runtime=runtime).session()
    response = await session.run_async("Hi")
    assert (response.text, len(response.messages)) == ("", 2)
    assert (await session.run_async("Hi")).text == "Next."
    await check_whole(session)
