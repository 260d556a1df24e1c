"""An agent that runs on a session from inside a turn of it joins that turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from inspect import isawaitable
from typing import Any

import anyio
import pytest
from tests.agents.histories import bodies, drain

from tertulia import Agent, RunContext, Runtime, Session, ToolCall, tool
from tertulia.agents.protocol import ModelEvent, ModelRequest, TextDelta, ToolCallMade
from tertulia.errors import AccessDenied, InvalidInput, ModelError
from tertulia.messages import Message
from tertulia.testing import ScriptedModel, call

PATIENCE = 20.0
"""Seconds, on a slow machine, in which what waits for nobody has ended."""


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


# -- who calls which tool, who has the floor, who may look


@pytest.mark.parametrize("together", [True, False])
async def test_agents_in_tools_of_one_turn_have_keys_of_their_own(
    runtime: Runtime, together: bool
) -> None:
    """The models give their calls the same ids; a payment must not be taken for another one."""
    keys: list[tuple[int, str]] = []

    @tool
    def charge(amount: int, context: RunContext) -> str:
        """Charge it."""
        keys.append((amount, context.key))
        return "charged"

    @tool
    async def delegate(amount: int, context: RunContext) -> str:
        """Have it charged."""
        steps = [call("charge", amount=amount), "Charged."]
        clerk = Agent("clerk", ScriptedModel(*steps), tools=[charge])
        return (await clerk.run("Charge", session=context.session)).text

    made = [call("delegate", amount=amount) for amount in (1, 2)]
    model = ScriptedModel(*([made] if together else made), "Done.")
    session = Agent("ann", model, tools=[delegate], runtime=runtime).session("s")
    assert (await session.run_async("Go")).text == "Done."
    assert sorted(amount for amount, _ in keys) == [1, 2]
    assert len({key for _, key in keys}) == 2
    called = [body["call"] for body in await bodies(session, "tool.called")]
    assert len(called) == len(set(called)) == 4


def consulting(then: Agent) -> Any:
    """A tool in which an agent hands over to another."""

    @tool
    async def consult(context: RunContext) -> str:
        """Ask somebody, who asks somebody else."""
        model = ScriptedModel(call(f"transfer_to_{then.name}", reason="they know"))
        helper = Agent("helper", model, handoffs=[then])
        return (await helper.run("Well?", session=context.session)).text

    return consult


async def test_a_handoff_inside_a_tool_is_not_who_goes_on_after_an_approval(
    runtime: Runtime,
) -> None:
    @tool(requires_approval=True)
    def act() -> str:
        """Do it."""
        return "done"

    bob = Agent("bob", ScriptedModel("Bob knows.", "Bob goes on."))
    steps = [call("consult"), call("act"), "Ann goes on."]
    agent = Agent(
        "ann", ScriptedModel(*steps), tools=[consulting(bob), act], handoffs=[bob], runtime=runtime
    )
    session = agent.session("s")
    waiting = await session.run_async("Go")
    session.approve(waiting.pending[0].id)
    response = await session.resume_async()
    assert (response.agent, response.text) == ("ann", "Ann goes on.")
    assert [m.text for m in response.messages if m.role == "tool"] == ["Bob knows.", "done"]
    assert session.floor == "ann"


async def test_a_handoff_inside_a_tool_is_no_floor_for_forks_and_rewinds(
    runtime: Runtime,
) -> None:
    bob = Agent("bob", ScriptedModel("Bob knows."))
    model = ScriptedModel(call("consult"), "Done.", "More.")
    session = Agent("ann", model, tools=[consulting(bob)], runtime=runtime).session("s")
    await session.run_async("Go")
    position = (await session.events())[-1].seq
    assert await bodies(session, "handoff") == []
    assert (session.floor, session.fork("f").floor) == ("ann", "ann")
    assert session.fork("g", at=position).floor == "ann"
    await session.run_async("More")
    await session.rewind(position)
    assert session.floor == "ann"


async def test_an_agent_that_joined_a_turn_has_the_floor_after_forks_and_rewinds(
    runtime: Runtime,
) -> None:
    session = runtime.session("s")
    await Agent("ann", ScriptedModel("One.")).run("Go", session)
    before = (await session.events())[-1].seq
    async with session.turn("Hello"):
        await Agent("ben", ScriptedModel("Two.", "Again.")).run("Go", session)
    joined = (await session.events())[-1].seq
    assert [(each["from"], each["to"]) for each in await bodies(session, "handoff")] == [
        ("ann", "ben")
    ]
    assert session.fork("before", at=before).floor == "ann"
    assert session.fork("joined", at=joined).floor == "ben"
    await Agent("cas", ScriptedModel("Three.")).run("Go", session)
    assert session.floor == "cas"
    await session.rewind(joined)
    assert session.floor == "ben"
    await session.rewind(before)
    assert session.floor == "ann"
    assert await session.verify()


async def test_another_user_is_refused_inside_the_turn_of_the_owner(runtime: Runtime) -> None:
    refused: list[str] = []
    model = ScriptedModel("I know it all.")

    @tool
    async def spy() -> str:
        """Try to listen in."""
        other = runtime.session("s", user_id="mallory")
        message = {"role": "user", "content": "Tell me"}
        doors: dict[str, Callable[[], Any]] = {
            "history": other.history,
            "messages": lambda: other.messages,
            "send": lambda: other.send_message(message),
            "get": lambda: other.get_state("k"),
            "set": lambda: other.set_state("k", 1),
            "keys": other.state_keys,
            "update": lambda: other.update_state("k", lambda _: 1),
            "run": lambda: Agent("mal", model).run("Tell me", other),
            "stream": lambda: drain(Agent("mal", model).stream("Tell me", other), []),
            "events": other.events,
        }
        for name, door in doors.items():
            try:
                got = door()
                await got if isawaitable(got) else None
            except AccessDenied:
                refused.append(name)
        assert refused == list(doors)
        return "refused"

    mine = ScriptedModel(call("spy"), "Done.")
    session = Agent("ann", mine, tools=[spy], runtime=runtime).session("s", user_id="alice")
    await session.set_state("k", "secret")
    response = await session.run_async("A secret")
    assert response.messages[2].text == "refused"
    assert model.requests == []
    assert session.get_state("k") == "secret"
    assert [m.text for m in await session.history()] == ["A secret", "", "refused", "Done."]


# -- an agent that runs an agent before it says anything


def hinted(helper: Agent) -> Agent:
    """An agent whose instructions come from another one."""

    async def instructions(context: RunContext) -> str:
        return (await helper.run("A hint?", session=context.session)).text

    return Agent("ann", ScriptedModel("Done."), instructions=instructions)


async def test_an_agent_asks_another_for_its_instructions(runtime: Runtime) -> None:
    session = runtime.session("s")
    agent = hinted(Agent("helper", ScriptedModel("Be brief.")))
    with anyio.fail_after(PATIENCE):
        assert (await agent.run("Go", session)).text == "Done."
    assert [m.text for m in await session.history()] == ["Go", "Done."]
    assert session.floor == "ann"
    assert await session.verify()


async def test_an_agent_that_joined_a_turn_does_not_wait_for_itself(runtime: Runtime) -> None:
    session = runtime.session("s")
    helper = ScriptedModel("Be brief.")
    agent = hinted(Agent("helper", helper))
    with anyio.fail_after(PATIENCE):
        async with session.turn("Hello"):
            assert (await agent.run("Go", session)).text == "Done."
    assert len(helper.requests) == 1
    assert [m.text for m in await session.history()] == ["Hello", "Go", "Done."]
    assert session.floor == "ann"
    assert await session.verify()
