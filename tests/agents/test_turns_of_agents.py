"""What a turn of an agent leaves in its session, whatever becomes of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import cast

import pytest

from tertulia import Agent, Runtime, Session, ToolCall, tool
from tertulia.agents import Response
from tertulia.agents.protocol import ModelEvent, ModelRequest, TextDelta, UsageReport
from tertulia.errors import (
    ConfigurationError,
    IdempotencyConflict,
    InvalidInput,
    ModelError,
    SessionBusy,
    TurnInterrupted,
    UsageError,
)
from tertulia.messages import Message
from tertulia.stores.base import Change, SessionRow
from tertulia.testing.models import ScriptedModel


def said(messages: list[Message]) -> list[tuple[str, str]]:
    return [(message.role, message.text) for message in messages]


async def kinds(session: Session) -> list[str]:
    return [event.type for event in await session.events()]


@tool(read_only=True)
def look(place: str) -> str:
    """Look somewhere."""
    return f"nothing in {place}"


@tool
def charge(cents: int) -> str:
    """Charge the card."""
    return f"charged {cents}"


LOOK = ToolCall("c1", "look", {"place": "the box"})
CHARGE = ToolCall("c2", "charge", {"cents": 500})


async def test_an_answer_and_its_question_are_in_the_history(runtime: Runtime) -> None:
    agent = Agent("ann", ScriptedModel("Hello there."), runtime=runtime)
    session = agent.session("s")
    response = await session.run_async("Hi")
    assert response.text == "Hello there."
    history = await session.history()
    assert said(history) == [("user", "Hi"), ("assistant", "Hello there.")]
    assert history[1].agent == "ann"
    assert response.messages == history
    assert response.turn == 2
    assert response.usage.output_tokens == 2


async def test_the_question_is_present_in_every_tool_round(runtime: Runtime) -> None:
    model = ScriptedModel(LOOK, ["And", CHARGE], "Done.")
    session = Agent(model=model, tools=[look, charge], runtime=runtime).session()
    await session.run_async("Look and charge")
    for request in model.requests:
        assert request.messages[0].text == "Look and charge"
    assert len(model.requests) == 3


async def test_tool_calls_and_results_are_in_history_requests_and_response(
    runtime: Runtime,
) -> None:
    model = ScriptedModel(LOOK, "Empty.", "Still empty.")
    session = Agent(model=model, tools=[look], runtime=runtime).session()
    response = await session.run_async("Look")
    expected = [("user", "Look"), ("assistant", ""), ("tool", "nothing in the box")]
    assert said(model.requests[1].messages) == expected
    assert said(await session.history()) == [*expected, ("assistant", "Empty.")]
    assert response.tool_calls == [LOOK]
    await session.run_async("Again")
    assert said(model.requests[2].messages)[:4] == [*expected, ("assistant", "Empty.")]


async def test_a_call_is_in_the_log_before_it_runs_and_after(runtime: Runtime) -> None:
    seen: list[list[str]] = []

    @tool(read_only=True)
    async def peek() -> str:
        """Peek."""
        seen.append(await kinds(session))
        return "ok"

    model = ScriptedModel(ToolCall("c", "peek"), "Done.")
    session = Agent(model=model, tools=[peek], runtime=runtime).session()
    await session.run_async("Peek")
    assert seen[0][-1] == "tool.called"
    assert "tool.returned" not in seen[0]
    assert (await kinds(session))[-6:] == [
        "tool.called",
        "tool.returned",
        "message.added",
        "usage",
        "message.added",
        "turn.completed",
    ]


async def test_a_turn_is_two_commits_and_a_tool_round_two_more(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ScriptedModel("One.", "Two.", [LOOK, ToolCall("c9", "look", {"place": "x"})], "Three.")
    session = Agent(model=model, tools=[look], runtime=runtime).session()
    await session.run_async("first")
    commits: list[int] = []
    plain = runtime.store.commit

    async def counted(change: Change) -> SessionRow:
        commits.append(1)
        return await plain(change)

    monkeypatch.setattr(runtime.store, "commit", counted)
    await session.run_async("second")
    assert len(commits) == 2
    await session.run_async("third")
    assert len(commits) == 2 + 4


async def test_a_failing_model_leaves_the_history_as_before(runtime: Runtime) -> None:
    model = ScriptedModel("One.", ["Half an", ModelError("it broke")], "Two.")
    session = Agent(model=model, runtime=runtime).session()
    await session.run_async("first")
    before = await session.history()
    with pytest.raises(ModelError, match="it broke"):
        await session.run_async("second")
    assert await session.history() == before
    assert (await kinds(session))[-1] == "turn.failed"
    await session.run_async("third")
    assert [text for _, text in said(model.requests[-1].messages)] == ["first", "One.", "third"]


async def test_failing_after_harmless_tools_leaves_no_trace_in_the_history(
    runtime: Runtime,
) -> None:
    model = ScriptedModel(LOOK, ModelError("it broke"))
    session = Agent(model=model, tools=[look], runtime=runtime).session()
    with pytest.raises(ModelError):
        await session.run_async("Look")
    assert await session.history() == []
    assert "tool.returned" in await kinds(session)


async def test_failing_after_a_harmful_tool_closes_as_interrupted(runtime: Runtime) -> None:
    model = ScriptedModel(CHARGE, ModelError("it broke"), "I see.")
    session = Agent(model=model, tools=[charge], runtime=runtime).session()
    with pytest.raises(ModelError):
        await session.run_async("Charge me")
    assert (await kinds(session))[-1] == "turn.interrupted"
    assert said(await session.history())[1:] == [("assistant", ""), ("tool", "charged 500")]
    await session.run_async("And now?")
    assert ("tool", "charged 500") in said(model.requests[-1].messages)


async def test_a_harmful_tool_that_is_cut_off_has_an_unknown_outcome(runtime: Runtime) -> None:
    running = asyncio.Event()

    @tool
    async def transfer() -> str:
        """Transfer money."""
        running.set()
        await asyncio.Event().wait()
        return "never"

    model = ScriptedModel(ToolCall("c", "transfer"), "I see.")
    session = Agent(model=model, tools=[transfer], runtime=runtime).session()
    task = asyncio.ensure_future(session.run_async("Transfer"))
    await running.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    history = await session.history()
    assert history[-1].role == "tool"
    assert (history[-1].metadata or {})["outcome"] == "unknown"
    assert (await kinds(session))[-1] == "turn.interrupted"
    assert (await session.run_async("Well?")).text == "I see."


async def test_what_finished_before_the_interruption_keeps_its_result(runtime: Runtime) -> None:
    waiting, charged = asyncio.Event(), asyncio.Event()

    @tool
    async def pay() -> str:
        """Pay."""
        charged.set()
        return "paid"

    @tool
    async def wait() -> str:
        """Wait."""
        await charged.wait()
        waiting.set()
        await asyncio.Event().wait()
        return "never"

    model = ScriptedModel([ToolCall("a", "pay"), ToolCall("b", "wait")])
    session = Agent(model=model, tools=[pay, wait], runtime=runtime).session()
    task = asyncio.ensure_future(session.run_async("Pay and wait"))
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    results = {m.tool_call_id: m for m in await session.history() if m.role == "tool"}
    assert results["a"].text == "paid"
    assert (results["b"].metadata or {})["outcome"] == "unknown"


async def test_two_runs_at_once_on_one_session_do_not_interleave(runtime: Runtime) -> None:
    async def slowly(request: ModelRequest) -> AsyncIterator[ModelEvent]:
        for _ in range(5):
            await asyncio.sleep(0)
        yield TextDelta(f"answer to {request.messages[-1].text}")
        yield UsageReport(1, 1)

    model = ScriptedModel(*[slowly] * 10)
    session = Agent(model=model, runtime=runtime).session()
    await asyncio.gather(*(session.run_async(f"question {n}") for n in range(10)))
    texts = said(await session.history())
    assert len(texts) == 20
    for (asker, question), (answerer, answer) in zip(texts[::2], texts[1::2], strict=True):
        assert (asker, answerer) == ("user", "assistant")
        assert answer == f"answer to {question}"


async def test_busy_decides_what_a_second_run_does(runtime: Runtime) -> None:
    began = asyncio.Event()

    async def stuck(request: ModelRequest) -> AsyncIterator[ModelEvent]:
        began.set()
        await asyncio.Event().wait()
        yield TextDelta("never")

    model = ScriptedModel(stuck, "Second.")
    session = Agent(model=model, runtime=runtime).session()
    first = asyncio.ensure_future(session.run_async("first"))
    await began.wait()
    with pytest.raises(SessionBusy):
        await session.run_async("refused", busy="reject")
    assert (await session.run_async("second", busy="interrupt")).text == "Second."
    with pytest.raises(TurnInterrupted):
        await first
    assert [text for _, text in said(await session.history())] == ["first", "second", "Second."]


async def test_ten_rounds_of_tools_are_followed_by_one_without(runtime: Runtime) -> None:
    steps = [ToolCall(f"c{n}", "look", {"place": "x"}) for n in range(10)]
    model = ScriptedModel(*steps, "Enough.")
    session = Agent(model=model, tools=[look], runtime=runtime).session()
    assert (await session.run_async("Look")).text == "Enough."
    assert [request.may_call for request in model.requests] == [True] * 10 + [False]


async def test_a_model_that_never_stops_calling_tools_fails(runtime: Runtime) -> None:
    model = ScriptedModel(*[ToolCall("same", "look", {"place": "x"})] * 11)
    session = Agent(model=model, tools=[look], runtime=runtime).session()
    with pytest.raises(ModelError, match="10 rounds"):
        await session.run_async("Look")
    assert await session.history() == []


async def test_system_prompt_instructions_and_settings_reach_the_model(runtime: Runtime) -> None:
    model = ScriptedModel("a", "b")
    agent = Agent(
        model=model,
        instructions=lambda context: f"You serve {context.metadata.get('who')}.",
        temperature=0.5,
        runtime=runtime,
    )
    session = agent.session(system="Be brief.")
    await session.run_async("Hi", metadata={"who": "Ann"}, max_tokens=7)
    assert model.requests[0].system == "Be brief.\n\nYou serve Ann."
    assert (model.requests[0].temperature, model.requests[0].max_tokens) == (0.5, 7)


async def test_an_agent_runs_in_its_own_session_in_the_given_one_or_in_none(
    runtime: Runtime,
) -> None:
    model = ScriptedModel("a", "b", "c", "d")
    own, other = runtime.session("own"), runtime.session("other")
    agent = Agent(model=model, session=own)
    await agent.run("one")
    await agent.run("two", session=other)
    assert [m.text for m in await own.history()] == ["one", "a"]
    assert [m.text for m in await other.history()] == ["two", "b"]
    alone = Agent(model=model, runtime=runtime)
    await alone.run("three")
    await alone.run("four")
    assert [m.text for m in model.requests[-1].messages] == ["four"]
    assert len(await runtime.sessions()) == 2


async def test_usage_is_an_event_of_each_request_and_a_sum_in_the_response(
    runtime: Runtime,
) -> None:
    model = ScriptedModel([UsageReport(10, 1), LOOK], [UsageReport(20, 2), TextDelta("Done.")])
    session = Agent(model=model, tools=[look], runtime=runtime).session()
    response = await session.run_async("Look")
    events = await session.events(types="usage")
    assert [(event.body or {})["input_tokens"] for event in events] == [10, 20]
    usage = response.usage
    assert (usage.requests, usage.input_tokens, usage.total_tokens) == (2, 30, 33)


async def test_without_a_model_the_error_says_what_to_set(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TERTULIA_MODEL", raising=False)
    session = Agent(runtime=runtime).session()
    with pytest.raises(ConfigurationError, match=r"TERTULIA_MODEL.*OPENAI_API_KEY"):
        await session.run_async("Hi")
    assert await session.events() == []
    monkeypatch.setenv("TERTULIA_MODEL", "offline")
    assert (await session.run_async("My name is Ann")).text == "Nice to meet you, Ann."


@pytest.mark.parametrize("name", ["gpt-4o", "openai:", ":gpt-4o", ""])
def test_a_model_without_its_provider_is_refused_at_once(name: str) -> None:
    with pytest.raises(ConfigurationError, match="names no model"):
        Agent(model=name)


async def test_unknown_options_are_refused_before_anything_happens(runtime: Runtime) -> None:
    session = Agent(model=ScriptedModel("a"), runtime=runtime).session()
    with pytest.raises(InvalidInput, match="temprature"):
        session.run_async("Hi", temprature=1)
    with pytest.raises(InvalidInput, match="user message"):
        session.run_async({"role": "assistant", "content": "Hi"})


async def test_a_session_without_an_agent_says_so(runtime: Runtime) -> None:
    with pytest.raises(UsageError, match="has no agent"):
        runtime.session().run("Hi")


async def test_a_repeated_request_runs_once(runtime: Runtime) -> None:
    model = ScriptedModel("One.", "Two.", ModelError("it broke"), "Three.")
    session = Agent(model=model, runtime=runtime).session()
    twice = [session.run_async("Hi", idempotency_key="k") for _ in range(2)]
    first, second = cast("list[Response]", await asyncio.gather(*twice))
    third = await session.run_async("Hi", idempotency_key="k")
    assert first.text == second.text == third.text == "One."
    assert third.turn == first.turn
    events = [event async for event in session.stream_async("Hi", idempotency_key="k")]
    assert "".join(event.text for event in events) == "One."
    assert len(model.requests) == 1
    with pytest.raises(IdempotencyConflict):
        await session.run_async("Other", idempotency_key="k")
    assert (await session.fork().run_async("Hi", idempotency_key="k")).text == "Two."


async def test_a_request_that_failed_may_be_repeated(runtime: Runtime) -> None:
    model = ScriptedModel(ModelError("it broke"), "Well.")
    session = Agent(model=model, runtime=runtime).session()
    with pytest.raises(ModelError):
        await session.run_async("Hi", idempotency_key="k")
    assert (await session.run_async("Hi", idempotency_key="k")).text == "Well."
    assert (await session.run_async("Hi", idempotency_key="k")).text == "Well."


class Unspeakable(Exception):
    """An error that has no text."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (ValueError("\ud800"), "Error: ValueError: ?"),
        (ValueError("x" * 2_000_000), "Error: ValueError: " + "x" * 1_000),
        (Unspeakable(), "Error: Unspeakable (its text cannot be had: RuntimeError)"),
        (GeneratorExit(), "Error: GeneratorExit"),
        (SystemExit(3), "Error: SystemExit: 3"),
    ],
)
async def test_whatever_a_tool_raises_becomes_a_result_that_can_be_stored(
    runtime: Runtime, raised: BaseException, told: str
) -> None:
    @tool
    async def fail() -> str:
        """Fail."""
        raise raised

    model = ScriptedModel(ToolCall("c", "fail"), "I see.")
    session = Agent(model=model, tools=[fail], runtime=runtime).session()
    response = await session.run_async("Try")
    assert response.messages[2].text == told
    failed = await session.events(types="tool.failed")
    assert [event.body for event in failed] == [{"call": "c", "error": told[7:]}]


async def test_a_session_counts_what_its_model_requests_consumed(runtime: Runtime) -> None:
    model = ScriptedModel(
        [TextDelta("One."), UsageReport(10, 3)],
        [TextDelta("Two."), UsageReport(20, 4), ModelError("down")],
        [TextDelta("Three."), UsageReport(30, 5)],
    )
    agent = Agent(model=model, runtime=runtime)
    session = agent.session("counted")
    assert session.usage.requests == 0
    await session.run_async("1")
    fork = session.fork("branch")
    with pytest.raises(ModelError):
        await session.run_async("2")
    await session.run_async("3")
    assert (session.usage.requests, session.usage.total_tokens) == (3, 72)
    assert fork.usage.requests == 0
    again = await runtime.get("counted")
    assert again.usage == session.usage
    assert await session.verify()
