"""An agent that runs on a session from inside a turn of it joins that turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tertulia import Agent, RunContext, Runtime, Session, ToolCall, tool
from tertulia.agents.protocol import ModelEvent, ModelRequest, TextDelta, ToolCallMade
from tertulia.errors import InvalidInput, ModelError
from tertulia.messages import Message
from tertulia.testing import ScriptedModel


def said(messages: list[Message]) -> list[tuple[str, str | None, str]]:
    return [(message.role, message.agent, message.text) for message in messages]


def asker(runtime: Runtime, *tools: object, steps: int = 1) -> Session:
    calls = [ToolCall(f"c{n}", getattr(each, "name", "")) for n, each in enumerate(tools)]
    model = ScriptedModel(*[calls] * steps, "The expert has answered.")
    return Agent(name="asker", model=model, tools=list(tools), runtime=runtime).session("s")


async def test_an_agent_in_a_tool_sees_the_turn_and_answers_the_tool(runtime: Runtime) -> None:
    model = ScriptedModel("Forty-two.")
    expert = Agent(name="expert", model=model)

    @tool
    async def ask(context: RunContext) -> str:
        """Ask the expert."""
        return (await expert.run("What is six by seven?", session=context.session)).text

    session = asker(runtime, ask)
    response = await session.run_async("Ask somebody")
    assert said(response.messages) == [
        ("user", None, "Ask somebody"),
        ("assistant", "asker", ""),
        ("tool", None, "Forty-two."),
        ("assistant", "asker", "The expert has answered."),
    ]
    [request] = model.requests
    assert said(request.messages) == [
        ("user", None, "Ask somebody"),
        ("assistant", "asker", ""),
        ("tool", None, "This call is still running."),
        ("user", None, "What is six by seven?"),
    ]
    assert session.floor == "asker"
    assert session.usage.requests == 3
    assert await session.verify()


async def test_the_tools_of_an_agent_in_a_tool_are_in_the_audit_only(runtime: Runtime) -> None:
    ran: list[str] = []

    @tool
    def measure(what: str) -> str:
        """Measure something."""
        ran.append(what)
        return "three metres"

    model = ScriptedModel(ToolCall("inner", "measure", {"what": "the door"}), "Three metres.")
    expert = Agent(name="expert", model=model, tools=[measure])

    @tool
    async def ask(context: RunContext) -> str:
        """Ask the expert."""
        return (await expert.run("How high is it?", session=context.session)).text

    session = asker(runtime, ask)
    response = await session.run_async("Ask somebody")
    assert ran == ["the door"]
    assert [call.name for call in response.tool_calls] == ["ask"]
    called = await session.events(types=["tool.called", "tool.returned"])
    names = [(event.type, (event.body or {})["call"]) for event in called]
    assert names == [
        ("tool.called", "c0"),
        ("tool.called", "inner"),
        ("tool.returned", "inner"),
        ("tool.returned", "c0"),
    ]
    assert await session.verify()


async def test_a_synchronous_tool_may_run_its_own_session(runtime: Runtime) -> None:
    expert = Agent(name="expert", model=ScriptedModel("Forty-two."))

    @tool
    def ask(context: RunContext) -> str:
        """Ask the expert."""
        return expert.run_sync("What is six by seven?", session=context.session).text

    response = await asker(runtime, ask).run_async("Ask somebody")
    assert response.messages[2].text == "Forty-two."


async def test_agents_in_parallel_tools_do_not_wait_for_each_other(runtime: Runtime) -> None:
    both = asyncio.Barrier(2)

    def asking(name: str) -> object:
        @tool(name=f"ask_{name}")
        async def ask(context: RunContext) -> str:
            """Ask somebody."""
            await both.wait()
            agent = Agent(name=name, model=ScriptedModel(f"I am {name}."))
            return (await agent.run("Who are you?", session=context.session)).text

        return ask

    session = asker(runtime, asking("ann"), asking("ben"))
    response = await session.run_async("Ask both")
    results = sorted(message.text for message in response.messages if message.role == "tool")
    assert results == ["I am ann.", "I am ben."]
    assert await session.verify()


async def test_an_agent_that_fails_inside_a_tool_is_a_failed_tool(runtime: Runtime) -> None:
    expert = Agent(name="expert", model=ScriptedModel(ModelError("out of order")))

    @tool
    async def ask(context: RunContext) -> str:
        """Ask the expert."""
        return (await expert.run("Well?", session=context.session)).text

    session = asker(runtime, ask)
    response = await session.run_async("Ask somebody")
    assert response.messages[2].text == "Error: ModelError: out of order"
    assert response.text == "The expert has answered."


async def test_a_tool_that_needs_approval_is_refused_inside_another_tool(
    runtime: Runtime,
) -> None:
    @tool(requires_approval=True)
    def pay() -> str:
        """Pay."""
        raise AssertionError("nobody approved it")

    model = ScriptedModel(ToolCall("p", "pay"), "I could not pay.")
    clerk = Agent(name="clerk", model=model, tools=[pay])

    @tool
    async def ask(context: RunContext) -> str:
        """Ask the clerk."""
        return (await clerk.run("Pay", session=context.session)).text

    response = await asker(runtime, ask).run_async("Have it paid")
    assert response.messages[2].text == "I could not pay."
    assert "needs a person's approval" in model.requests[1].messages[-1].text


async def test_agents_in_a_turn_that_is_held_are_one_turn_together(runtime: Runtime) -> None:
    session = runtime.session("s")
    ann = Agent(name="ann", model=ScriptedModel("First."))
    ben = Agent(name="ben", model=ScriptedModel("Second."))
    async with session.turn() as turn:
        await asyncio.gather(ann.run("One", session), ben.run("Two", session))
    history = await session.history()
    assert said(history) == [
        ("user", None, "One"),
        ("assistant", "ann", "First."),
        ("user", None, "Two"),
        ("assistant", "ben", "Second."),
    ]
    types = [event.type for event in await session.events()]
    assert types.count("turn.started") == types.count("turn.completed") == 1
    assert session.floor == "ben"
    assert turn.closed
    assert await session.verify()


async def test_a_stream_that_is_broken_off_inside_a_turn_does_not_stop_the_turn(
    runtime: Runtime,
) -> None:
    session = runtime.session("s")
    ann = Agent(name="ann", model=ScriptedModel("one two three four", "Done."))
    async with session.turn("Go on"):
        async with ann.stream("Count", session) as stream:
            async for event in stream:
                if event.type == "text_delta":
                    break
        answer = await ann.run("Now?", session)
    assert answer.text == "Done."
    assert [message.text for message in await session.history()] == [
        "Go on",
        "Count",
        "Now?",
        "Done.",
    ]


async def test_an_idempotency_key_is_refused_where_there_is_no_turn_of_its_own(
    runtime: Runtime,
) -> None:
    session = runtime.session("s")
    ann = Agent(name="ann", model=ScriptedModel("No."))
    async with session.turn("Hello"):
        with pytest.raises(InvalidInput, match="joins a turn"):
            await ann.run("Hello", session, idempotency_key="k")


async def test_a_synchronous_stream_in_a_tool_may_be_broken_off(runtime: Runtime) -> None:
    model = ScriptedModel(" ".join(str(number) for number in range(500)))
    counter = Agent(name="counter", model=model)

    @tool
    def count(context: RunContext) -> str:
        """Count."""
        session = counter.session("s", runtime=runtime)
        with session.stream("Count") as stream:
            first = next(event.text for event in stream if event.type == "text_delta")
        return first.strip()

    response = await asker(runtime, count).run_async("Have it counted")
    assert response.messages[2].text == "0"
    assert response.text == "The expert has answered."


async def test_a_tool_that_runs_its_own_agent_for_ever_is_stopped(runtime: Runtime) -> None:
    async def again(request: ModelRequest) -> AsyncIterator[ModelEvent]:
        asked = [message for message in request.messages if message.role == "tool"]
        if asked and asked[-1].text != "This call is still running.":
            yield TextDelta(asked[-1].text)
        else:
            yield ToolCallMade(ToolCall("c", "ask"))

    @tool
    async def ask(context: RunContext) -> str:
        """Ask again."""
        return (await context.session.run_async("Again")).text

    model = ScriptedModel(*[again] * 50)
    session = Agent(name="echo", model=model, tools=[ask], runtime=runtime).session()
    response = await session.run_async("Ask")
    assert "more than 8 deep" in response.text
    assert await session.verify()
