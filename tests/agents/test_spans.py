"""The spans of a real turn: model steps, tools and commits under it, and nothing that is said."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from tests.spans import exporter, tree

from tertulia import Agent, Runtime, tool
from tertulia.agents.protocol import UsageReport
from tertulia.errors import ModelError, TurnInterrupted
from tertulia.testing import Pause, ScriptedModel, call

SECRET = "the secret of the oracle"


@tool(read_only=True)
def look(place: str) -> str:
    """Look somewhere."""
    with trace.get_tracer("app").start_as_current_span("inside look"):
        return f"{SECRET} in {place}"


@tool(idempotent=True)
async def note(text: str) -> str:
    """Write something down."""
    with trace.get_tracer("app").start_as_current_span("inside note"):
        return text


@tool(read_only=True)
def broken() -> str:
    """Fail."""
    raise LookupError(SECRET)


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    found = exporter()
    yield found
    found.clear()


def named(spans: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    """The spans of that name, in order of their start."""
    found = [span for span in spans.get_finished_spans() if span.name == name]
    return sorted(found, key=lambda span: span.start_time or 0)


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


async def test_a_turn_is_over_its_model_steps_its_tools_and_its_commits(
    runtime: Runtime, spans: InMemorySpanExporter
) -> None:
    model = ScriptedModel([call("look", place="box"), call("note", text="x")], "Done.")
    session = Agent("ann", model=model, tools=[look, note], runtime=runtime).session("s")
    await session.run_async("Look and note")
    found = tree(spans.get_finished_spans())
    assert found.pop("") == ["invoke_agent ann"]
    children = found.pop("invoke_agent ann")
    assert children[0] == "chat scripted"
    assert sorted(set(children)) == [
        "chat scripted",
        "execute_tool look",
        "execute_tool note",
        "tertulia.commit",
    ]
    assert children.count("chat scripted") == 2
    assert children.count("tertulia.commit") == 3
    assert found == {"execute_tool look": ["inside look"], "execute_tool note": ["inside note"]}


async def test_each_span_says_what_the_conventions_ask_for(
    runtime: Runtime, spans: InMemorySpanExporter
) -> None:
    model = ScriptedModel(
        [UsageReport(10, 1), call("look", place="box")],
        ["Done.", UsageReport(20, 2)],
        name="openai:gpt-4o",
    )
    agent = Agent("ann", model=model, tools=[look], temperature=0, runtime=runtime)
    response = await agent.session("s").run_async("Look", max_tokens=7)
    [turn] = named(spans, "invoke_agent ann")
    assert attributes(turn) == {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.name": "ann",
        "gen_ai.conversation.id": "s",
        "gen_ai.usage.input_tokens": 30,
        "gen_ai.usage.output_tokens": 3,
        "tertulia.turn": response.turn,
    }
    first, second = named(spans, "chat gpt-4o")
    about = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.request.temperature": 0,
        "gen_ai.request.max_tokens": 7,
    }
    asked = {
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 1,
        "gen_ai.response.finish_reasons": ("tool_calls",),
    }
    answered = {
        "gen_ai.usage.input_tokens": 20,
        "gen_ai.usage.output_tokens": 2,
        "gen_ai.response.finish_reasons": ("stop",),
    }
    assert (about | asked).items() <= attributes(first).items()
    assert (about | answered).items() <= attributes(second).items()
    [step] = named(spans, "execute_tool look")
    called = {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.type": "function",
        "gen_ai.tool.name": "look",
        "gen_ai.tool.call.id": "call_1",
        "tertulia.tool.effect": "none",
    }
    assert called.items() <= attributes(step).items()


async def test_a_commit_says_its_session_and_how_many_events_it_has(
    runtime: Runtime, spans: InMemorySpanExporter
) -> None:
    session = Agent(model=ScriptedModel("Hello."), runtime=runtime).session("s")
    await session.run_async("Hi")
    commits = [attributes(span) for span in named(spans, "tertulia.commit")]
    assert {each["gen_ai.conversation.id"] for each in commits} == {"s"}
    question = (await session.history())[0]
    later = [event for event in await session.events() if event.seq > (question.seq or 0)]
    assert sum(each["tertulia.events"] for each in commits) == len(later)


async def test_nothing_that_is_said_is_in_a_span(
    runtime: Runtime, spans: InMemorySpanExporter
) -> None:
    model = ScriptedModel([call("look", place=SECRET), call("broken")], SECRET)
    agent = Agent("ann", model=model, tools=[look, broken], instructions=SECRET, runtime=runtime)
    session = agent.session("s", user_id=SECRET, system=SECRET)
    session.set_state(SECRET, SECRET)
    await session.run_async(SECRET, metadata={SECRET: SECRET})
    finished = spans.get_finished_spans()
    assert len(finished) > 5
    assert not [
        span for span in finished if SECRET in f"{span.to_json()}" and "inside" not in span.name
    ]


async def test_a_tool_that_fails_marks_its_span_and_not_its_turn(
    runtime: Runtime, spans: InMemorySpanExporter
) -> None:
    model = ScriptedModel(call("broken"), "It is broken.")
    session = Agent("ann", model=model, tools=[broken], runtime=runtime).session("s")
    await session.run_async("Try")
    [step], [turn] = named(spans, "execute_tool broken"), named(spans, "invoke_agent ann")
    assert (step.status.status_code, turn.status.status_code) == (
        StatusCode.ERROR,
        StatusCode.UNSET,
    )
    assert attributes(step)["error.type"] == "LookupError"


async def test_a_tool_that_does_not_exist_has_a_span_without_the_name_that_the_model_made_up(
    runtime: Runtime, spans: InMemorySpanExporter
) -> None:
    model = ScriptedModel(call("made_up"), "There is none.")
    await Agent("ann", model=model, tools=[look], runtime=runtime).session("s").run_async("Try")
    [step] = named(spans, "execute_tool")
    assert "gen_ai.tool.name" not in attributes(step)
    assert step.status.status_code is StatusCode.ERROR


async def test_a_turn_that_fails_is_marked_with_the_type_of_its_error(
    runtime: Runtime, spans: InMemorySpanExporter
) -> None:
    session = Agent("ann", ScriptedModel(ModelError(SECRET)), runtime=runtime).session("s")
    with pytest.raises(ModelError):
        await session.run_async("Hi")
    [turn], [chat] = named(spans, "invoke_agent ann"), named(spans, "chat scripted")
    for span in (turn, chat):
        assert span.status.status_code is StatusCode.ERROR
        assert attributes(span)["error.type"] == "tertulia.errors.ModelError"


async def test_a_turn_that_is_interrupted_says_so(
    runtime: Runtime, spans: InMemorySpanExporter
) -> None:
    pause = Pause()
    session = Agent("ann", ScriptedModel(["One", pause], "Two."), runtime=runtime).session("s")
    first = asyncio.ensure_future(session.run_async("first"))
    await pause.reached()
    await session.run_async("second", busy="interrupt")
    with pytest.raises(TurnInterrupted):
        await first
    stopped, went_on = named(spans, "invoke_agent ann")
    assert attributes(stopped)["error.type"] == "tertulia.errors.TurnInterrupted"
    assert went_on.status.status_code is StatusCode.UNSET


async def test_a_turn_is_a_child_of_the_callers_span_in_every_way_of_calling(
    runtime: Runtime, spans: InMemorySpanExporter
) -> None:
    agent = Agent("ann", ScriptedModel("a", "b", "c"), runtime=runtime)
    session = agent.session("s")
    with trace.get_tracer("app").start_as_current_span("request"):
        await session.run_async("one")
        await asyncio.to_thread(session.run, "two")
        async for _ in session.stream_async("three"):
            pass
    assert tree(spans.get_finished_spans())["request"] == ["invoke_agent ann"] * 3


async def test_an_agent_in_a_tool_of_another_is_a_child_of_that_tool(
    runtime: Runtime, spans: InMemorySpanExporter
) -> None:
    helper = Agent("helper", ScriptedModel("42"), runtime=runtime)

    @tool(read_only=True)
    async def ask() -> str:
        """Ask the helper."""
        return (await helper.run("What is it?")).text

    model = ScriptedModel(call("ask"), "It is 42.")
    await Agent("ann", model=model, tools=[ask], runtime=runtime).session("s").run_async("Well?")
    assert tree(spans.get_finished_spans())["execute_tool ask"] == ["invoke_agent helper"]
