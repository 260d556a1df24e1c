"""Answers of a type: how they are asked for, mended, kept and given back."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, cast

import msgspec
import pytest
from pydantic import BaseModel
from tests.agents.histories import bodies, check_valid, check_whole, drain, kinds, said

from tertulia import Agent, Runtime, ToolCall, tool
from tertulia.agents import Response, StreamEvent
from tertulia.agents.protocol import ToolCallMade, UsageReport
from tertulia.errors import InvalidInput, ModelError, SchemaValidationError
from tertulia.testing.models import ScriptedModel, call


class Routing(BaseModel):
    category: str
    urgent: bool = False


@dataclass
class Point:
    x: int
    y: int


ROUTING = '{"category":"billing","urgent":true}'
BILLING = Routing(category="billing", urgent=True)
WRONG = '{"urgent": "perhaps"}'
SHAPES = [
    pytest.param(Routing, ROUTING, BILLING, id="pydantic"),
    pytest.param(Point, '{"x": 1, "y": 2}', Point(1, 2), id="dataclass"),
    pytest.param(list[str], '["a", "b"]', ["a", "b"], id="list"),
    pytest.param(list[Point], '[{"x":1,"y":2}]', [Point(1, 2)], id="list of dataclasses"),
    pytest.param(int, "42", 42, id="int"),
    pytest.param(dict[str, int], '{"a": 1}', {"a": 1}, id="dict"),
]


@tool(read_only=True)
def look(place: str) -> str:
    """Look somewhere."""
    return f"nothing in {place}"


@tool
def charge(cents: int) -> str:
    """Charge the card."""
    return f"charged {cents}"


@pytest.mark.parametrize("fence", ["{}", "```json\n{}\n```", "Here it is:\n```\n{}\n```\nBye."])
@pytest.mark.parametrize(("kind", "text", "value"), SHAPES)
async def test_json_text_becomes_the_type_with_or_without_a_fence(
    kind: Any, text: str, value: Any, fence: str
) -> None:
    model = ScriptedModel(fence.replace("{}", text), "Next.")
    session = Agent(model=model).session()
    response = await session.json_async("Which?", schema=kind)
    assert response.output == value
    assert type(response.output) is type(value)
    history = await check_whole(session)
    assert "```" not in history[-1].text
    msgspec.json.decode(history[-1].text)
    assert response.text == history[-1].text
    assert (await session.run_async("And now?")).output == "Next."
    check_valid(model.requests[-1].messages)


@pytest.mark.parametrize(("kind", "text", "value"), SHAPES)
@pytest.mark.parametrize("wrapped", [True, False])
async def test_the_arguments_of_final_result_become_the_type(
    kind: Any, text: str, value: Any, wrapped: bool
) -> None:
    given: Any = msgspec.json.decode(text)
    bare = isinstance(given, dict) and not (wrapped and kind == dict[str, int])
    arguments = cast("dict[str, Any]", given if bare else {"response": given})
    model = ScriptedModel(ToolCall("f", "final_result", arguments), "Next.")
    session = Agent(model=model).session()
    response = await session.json_async("Which?", schema=kind)
    assert response.output == value
    history = await check_whole(session)
    assert [message.role for message in history] == ["user", "assistant"]
    assert history[-1].tool_calls is None
    assert response.tool_calls == []
    await session.run_async("And now?")
    check_valid(model.requests[-1].messages)


async def test_the_model_is_told_the_schema_that_was_asked_for() -> None:
    model = ScriptedModel(ROUTING, "Text.")
    session = Agent(model=model, tools=[look]).session()
    await session.json_async("Which?", schema=Routing)
    spec = model.requests[0].output
    assert spec is not None
    assert set(spec.parameters["properties"]) == {"category", "urgent"}
    await session.run_async("Hi")
    assert model.requests[1].output is None


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(WRONG, id="text"),
        pytest.param(ToolCall("f", "final_result", {"urgent": "perhaps"}), id="call"),
        pytest.param(
            ToolCallMade(ToolCall("f", "final_result", {}), malformed='{"categ'), id="malformed"
        ),
        pytest.param("I do not know.", id="prose"),
    ],
)
async def test_an_answer_that_does_not_fit_is_complained_of_and_leaves_only_the_next(
    runtime: Runtime, wrong: Any
) -> None:
    model = ScriptedModel(
        [wrong, UsageReport(10, 1)], [ROUTING, UsageReport(20, 2)], [UsageReport(1, 1), "Next."]
    )
    session = Agent("ann", model, runtime=runtime).session()
    response = await session.json_async("Which?", schema=Routing)
    assert response.output == BILLING
    complaint = model.requests[1].messages[-1]
    assert "category" in complaint.text or "JSON" in complaint.text
    assert complaint.role in ("user", "tool")
    check_valid(model.requests[1].messages)
    history = await check_whole(session)
    assert said(history) == [("user", "Which?"), ("assistant", ROUTING)]
    assert len(await bodies(session, "output.rejected")) == 1
    used = [
        (body["input_tokens"], body["output_tokens"]) for body in await bodies(session, "usage")
    ]
    assert used == [(10, 1), (20, 2)]
    usage = response.usage
    assert (usage.requests, usage.input_tokens, usage.output_tokens) == (2, 30, 3)
    await session.run_async("And?")
    assert said(model.requests[2].messages)[:2] == said(history)


async def test_the_audit_keeps_what_was_rejected(runtime: Runtime) -> None:
    model = ScriptedModel(WRONG, ROUTING)
    session = Agent(model=model, runtime=runtime).session()
    await session.json_async("Which?", schema=Routing)
    [rejected] = await bodies(session, "output.rejected")
    assert "perhaps" in rejected["text"]
    assert "category" in rejected["error"]


async def test_the_audit_keeps_what_was_rejected_of_a_final_result(runtime: Runtime) -> None:
    model = ScriptedModel(call("final_result", urgent="perhaps"), ROUTING)
    session = Agent(model=model, runtime=runtime).session()
    await session.json_async("Which?", schema=Routing)
    [rejected] = await bodies(session, "output.rejected")
    assert "perhaps" in str(rejected)


async def test_calls_with_the_same_id_in_every_attempt_stay_apart(runtime: Runtime) -> None:
    wrong = ToolCall("f", "final_result", {"urgent": "perhaps"})
    model = ScriptedModel(wrong, wrong, ToolCall("f", "final_result", {"category": "billing"}))
    session = Agent(model=model, runtime=runtime).session()
    response = await session.json_async("Which?", schema=Routing)
    assert response.output == Routing(category="billing")
    check_valid(model.requests[1].messages)
    check_valid(model.requests[2].messages)


async def test_never_a_valid_answer_fails_the_turn(runtime: Runtime) -> None:
    model = ScriptedModel("Hi.", WRONG, "No.", call("final_result"), "Well.")
    session = Agent(model=model, runtime=runtime).session()
    await session.run_async("Hello")
    before = await session.history()
    with pytest.raises(SchemaValidationError, match="Routing") as raised:
        await session.json_async("Which?", schema=Routing)
    assert isinstance(raised.value, ValueError)
    assert await check_whole(session) == before
    assert (await kinds(session))[-1] == "turn.failed"
    assert len(await bodies(session, "output.rejected")) == 3
    assert len(await bodies(session, "usage")) == 4
    assert (await session.run_async("Still there?")).text == "Well."
    assert [text for _, text in said(model.requests[-1].messages)] == [
        "Hello",
        "Hi.",
        "Still there?",
    ]


async def test_never_a_valid_answer_after_a_charge_keeps_the_charge(runtime: Runtime) -> None:
    model = ScriptedModel(call("charge", cents=5), WRONG, WRONG, WRONG, "Well.")
    session = Agent(model=model, tools=[charge], runtime=runtime).session()
    with pytest.raises(SchemaValidationError):
        await session.json_async("Charge me", schema=Routing)
    history = await check_whole(session)
    assert said(history)[1:] == [("assistant", ""), ("tool", "charged 5")]
    await session.run_async("And?")
    check_valid(model.requests[-1].messages)


async def test_tools_in_the_answer_of_final_result_run_first(runtime: Runtime) -> None:
    both = [call("look", place="x"), call("final_result", category="too early")]
    model = ScriptedModel(both, call("final_result", category="billing"), "Next.")
    session = Agent(model=model, tools=[look], runtime=runtime).session()
    response = await session.json_async("Which?", schema=Routing)
    assert response.output == Routing(category="billing")
    assert said(model.requests[1].messages)[-1] == ("tool", "nothing in x")
    history = await check_whole(session)
    assert [made.name for message in history for made in message.tool_calls or ()] == ["look"]
    await session.run_async("And now?")
    check_valid(model.requests[-1].messages)


async def test_tools_may_be_used_before_and_after_an_attempt_that_did_not_fit(
    runtime: Runtime,
) -> None:
    model = ScriptedModel(
        call("look", place="x"), WRONG, call("look", place="y"), WRONG, WRONG, ROUTING
    )
    session = Agent(model=model, tools=[look], runtime=runtime).session()
    response = await session.json_async("Which?", schema=Routing)
    assert response.output == BILLING
    history = await check_whole(session)
    assert [m.text for m in history if m.role == "tool"] == ["nothing in x", "nothing in y"]
    assert [m.text for m in history if m.role == "assistant"] == ["", "", ROUTING]


async def test_the_fields_of_the_output_are_on_the_response() -> None:
    agent = Agent("router", ScriptedModel(ROUTING, '{"x": 1, "y": 2}'), output_type=Routing)
    routing = await agent.run("My card")
    assert (routing.category, routing.urgent) == ("billing", True)
    point = await agent.run("Where?", output_type=dict[str, int])
    assert point.x == 1
    with pytest.raises(AttributeError, match="'z'"):
        _ = point.z


async def test_without_an_output_type_the_missing_field_says_what_to_give() -> None:
    response = await Agent(model=ScriptedModel("billing")).run("My card")
    with pytest.raises(AttributeError, match=r"category.*output_type=.*json\(schema=") as raised:
        _ = response.category
    assert isinstance(raised.value, AttributeError)
    assert not hasattr(response, "category")
    assert str(response) == "billing"


def test_the_synchronous_json_gives_the_type() -> None:
    session = Agent(model=ScriptedModel(ROUTING)).session()
    assert session.json("Which?", schema=Routing).output == BILLING


async def test_run_takes_an_output_type_that_wins_over_the_agents() -> None:
    model = ScriptedModel("7", ROUTING, "8")
    agent = Agent(model=model, output_type=Routing)
    assert (await agent.run("How many?", output_type=int)).output == 7
    session = agent.session()
    assert (await session.run_async("Which?")).output == BILLING
    assert (await session.run_async("How many?", output_type=int)).output == 8


@pytest.mark.parametrize("kind", ["Routing", 7, ROUTING, object()])
async def test_what_is_no_type_is_refused_and_nothing_is_spent(runtime: Runtime, kind: Any) -> None:
    model = ScriptedModel(ROUTING)
    session = Agent(model=model, runtime=runtime).session()
    with pytest.raises(InvalidInput, match="type"):
        await session.json_async("Which?", schema=kind)
    assert model.requests == []
    assert await session.history() == []


async def test_a_stream_hands_out_only_the_answer_that_fits(runtime: Runtime) -> None:
    model = ScriptedModel(WRONG, [call("look", place="x")], WRONG, ROUTING)
    agent = Agent(model=model, tools=[look], output_type=Routing, runtime=runtime)
    stream = agent.session().stream_async("Which?")
    events = [event async for event in stream]
    assert "".join(event.text for event in events) == ROUTING
    assert stream.response.output == BILLING
    assert events[-1].type == "turn_completed"
    assert events[-1].response == stream.response
    assert [event.type for event in events].count("tool_result") == 1


async def test_a_stream_that_never_fits_hands_out_no_text(runtime: Runtime) -> None:
    model = ScriptedModel(WRONG, WRONG, WRONG)
    stream = Agent(model=model, output_type=Routing, runtime=runtime).session().stream_async("?")
    events: list[StreamEvent] = []
    with pytest.raises(SchemaValidationError):
        await drain(stream, events)
    assert events[-1].type == "error"
    assert isinstance(events[-1].error, SchemaValidationError)
    assert [event for event in events if event.text] == []


async def test_a_repeated_request_gives_the_typed_output_again(runtime: Runtime) -> None:
    model = ScriptedModel(ROUTING)
    agent = Agent("ann", model, output_type=Routing, runtime=runtime)
    once = [agent.session("s").run_async("Which?", idempotency_key="k") for _ in range(2)]
    first, second = cast("list[Response]", await asyncio.gather(*once))
    third: Response = await agent.session("s").run_async("Which?", idempotency_key="k")
    again = Agent("ann", model, runtime=runtime).session("s")
    fourth: Response = await again.json_async("Which?", schema=Routing, idempotency_key="k")
    assert [each.output for each in (first, second, third, fourth)] == [BILLING] * 4
    assert third.category == "billing"
    events = [
        event async for event in agent.session("s").stream_async("Which?", idempotency_key="k")
    ]
    assert events[-1].response is not None
    assert events[-1].response.output == BILLING
    assert len(model.requests) == 1


async def test_the_same_request_asked_again_as_another_type_is_a_typed_error(
    runtime: Runtime,
) -> None:
    model = ScriptedModel("Billing, I think.")
    session = Agent(model=model, runtime=runtime).session()
    await session.run_async("Which?", idempotency_key="k")
    with pytest.raises(SchemaValidationError):
        await session.json_async("Which?", schema=Routing, idempotency_key="k")
    assert len(model.requests) == 1


async def test_a_model_that_fails_after_an_attempt_fails_the_turn(runtime: Runtime) -> None:
    model = ScriptedModel(WRONG, ModelError("it broke"), ROUTING)
    session = Agent(model=model, output_type=Routing, runtime=runtime).session()
    with pytest.raises(ModelError, match="it broke"):
        await session.run_async("Which?")
    assert await check_whole(session) == []
    assert len(await bodies(session, "output.rejected")) == 1
    assert (await session.run_async("Which?")).output == BILLING


async def test_a_tool_of_ones_own_named_final_result_is_refused_beside_an_output_type(
    runtime: Runtime,
) -> None:
    @tool(name="final_result")
    def mine(category: str) -> str:
        """A tool of one's own."""
        return category

    model = ScriptedModel(call("final_result", category="x"), "Done.")
    agent = Agent(model=model, tools=[mine], runtime=runtime)
    assert (await agent.run("Which?")).messages[2].text == "x"
    with pytest.raises(InvalidInput, match="final_result"):
        await agent.run("Which?", output_type=Routing)
    with pytest.raises(InvalidInput, match="final_result"):
        await agent.session().json_async("Which?", schema=Routing)
    with pytest.raises(InvalidInput, match="final_result"):
        await Agent(model=model, tools=[mine], output_type=Routing, runtime=runtime).run("Which?")
    assert len(model.requests) == 2
