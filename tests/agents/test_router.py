"""One conversation, any of several agents: who answers, and who goes on where one failed."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from tests.agents.histories import bodies, check_valid, check_whole, drain, kinds, said

from tertulia import Agent, AgentRouter, RunContext, Runtime, tool
from tertulia.agents import StreamEvent
from tertulia.agents.protocol import UsageReport
from tertulia.errors import (
    InvalidInput,
    ModelError,
    RoutingError,
    SchemaValidationError,
    UsageError,
)
from tertulia.testing.models import Pause, ScriptedModel, call

DOWN = ModelError("ann is down", status=503)


class World:
    """Tools that keep what they did."""

    def __init__(self) -> None:
        self.ran: list[str] = []

        @tool
        def charge(cents: int, context: RunContext) -> str:
            """Charge a card."""
            self.ran.append(f"{context.agent} {cents}")
            return f"charged {cents}"

        @tool(read_only=True)
        def look(context: RunContext) -> str:
            """Look."""
            self.ran.append(f"{context.agent} looks")
            return "nothing"

        self.tools = [charge, look]


@pytest.fixture
def world() -> World:
    return World()


def agent(name: str | None, *steps: Any, **options: Any) -> Agent:
    return Agent(name, ScriptedModel(*steps, name=f"of {name}"), **options)


def model_of(agent: Agent) -> ScriptedModel:
    assert isinstance(agent.model, ScriptedModel)
    return agent.model


async def test_the_first_answers_as_long_as_it_can(runtime: Runtime) -> None:
    ann, bob = agent("ann", "1", "2"), agent("bob")
    session = AgentRouter([ann, bob], runtime=runtime).session()
    responses = [await session.run_async(text) for text in ("a", "b")]
    assert [(each.text, each.agent) for each in responses] == [("1", "ann"), ("2", "ann")]
    assert model_of(bob).requests == []


async def test_when_it_fails_the_next_goes_on_with_the_same_turn(
    runtime: Runtime, world: World
) -> None:
    ann = agent("ann", call("charge", cents=5), DOWN, "Ann is back.", tools=world.tools)
    bob = agent("bob", call("charge", cents=7), "Bob here.", tools=world.tools)
    session = AgentRouter([ann, bob], runtime=runtime).session()
    response = await session.run_async("Charge me")
    assert (response.text, response.agent) == ("Bob here.", "bob")
    assert world.ran == ["ann 5", "bob 7"]
    history = await check_whole(session)
    assert said(history) == [
        ("user", "Charge me"),
        ("assistant", ""),
        ("tool", "charged 5"),
        ("assistant", ""),
        ("tool", "charged 7"),
        ("assistant", "Bob here."),
    ]
    assert [m.agent for m in history if m.role == "assistant"] == ["ann", "bob", "bob"]
    assert said(model_of(bob).requests[0].messages) == said(history)[:3]
    check_valid(model_of(bob).requests[0].messages)
    [failover] = await bodies(session, "failover")
    assert failover == {"from": "ann", "to": "bob", "error": "ann is down"}
    assert (await session.run_async("More")).agent == "ann"
    assert said(model_of(ann).last_request.messages)[:6] == said(history)


async def test_each_is_asked_once_in_its_order(runtime: Runtime) -> None:
    agents = [agent(name, ModelError(f"{name} is down"), "late") for name in ("a", "b", "c")]
    session = AgentRouter(agents, runtime=runtime).session()
    with pytest.raises(RoutingError) as raised:
        await session.run_async("Hi")
    assert isinstance(raised.value, ModelError)
    assert [str(each) for each in raised.value.errors] == ["a is down", "b is down", "c is down"]
    assert "b is down" in str(raised.value)
    assert [len(model_of(each).requests) for each in agents] == [1, 1, 1]
    assert await check_whole(session) == []
    assert (await kinds(session))[-1] == "turn.failed"
    assert (await session.run_async("Again")).text == "late"


async def test_all_failed_after_a_charge_keeps_the_charge(runtime: Runtime, world: World) -> None:
    ann = agent("ann", call("charge", cents=5), DOWN, tools=world.tools)
    bob = agent("bob", ModelError("bob is down"), "Back.", tools=world.tools)
    session = AgentRouter([ann, bob], runtime=runtime).session()
    with pytest.raises(RoutingError):
        await session.run_async("Charge me")
    assert (await kinds(session))[-1] == "turn.interrupted"
    assert ("tool", "charged 5") in said(await check_whole(session))
    assert world.ran == ["ann 5"]


async def test_one_agent_alone_raises_its_own_error(runtime: Runtime) -> None:
    session = AgentRouter([agent("ann", DOWN)], runtime=runtime).session()
    with pytest.raises(ModelError, match="ann is down") as raised:
        await session.run_async("Hi")
    assert not isinstance(raised.value, RoutingError) or raised.value.errors == [DOWN]


async def test_an_answer_that_does_not_fit_is_no_reason_to_ask_another(runtime: Runtime) -> None:
    ann, bob = agent("ann", "no", "no", "no"), agent("bob", "7")
    session = AgentRouter([ann, bob], runtime=runtime).session()
    with pytest.raises(SchemaValidationError):
        await session.json_async("How many?", schema=int)
    assert model_of(bob).requests == []


async def test_a_tool_that_raises_is_no_reason_to_ask_another(runtime: Runtime) -> None:
    @tool
    def ask_somebody() -> str:
        """Ask a model of one's own."""
        raise ModelError("the inner one is down")

    ann = agent("ann", call("ask_somebody"), "Sorry.", tools=[ask_somebody])
    bob = agent("bob", "Bob.")
    session = AgentRouter([ann, bob], runtime=runtime).session()
    assert (await session.run_async("Hi")).agent == "ann"


async def test_usage_of_both_counts(runtime: Runtime) -> None:
    ann = agent("ann", [UsageReport(10, 1), call("none")], DOWN)
    bob = agent("bob", [UsageReport(20, 2), "Bob."])
    response = await AgentRouter([ann, bob], runtime=runtime).session().run_async("Hi")
    assert (response.usage.requests, response.usage.input_tokens) == (2, 30)


async def test_round_robin_asks_one_after_the_other(runtime: Runtime) -> None:
    agents = [agent("a", "1", "4"), agent("b", "2"), agent("c", "3")]
    session = AgentRouter(agents, "round_robin", runtime=runtime).session()
    answers = [(await session.run_async("Hi")).text for _ in range(4)]
    assert answers == ["1", "2", "3", "4"]
    assert [m.agent for m in await session.history() if m.agent] == ["a", "b", "c", "a"]


async def test_round_robin_goes_on_with_the_next_where_one_fails(runtime: Runtime) -> None:
    agents = [agent("a", "1", "3"), agent("b", DOWN), agent("c", "2", ModelError("c"))]
    session = AgentRouter(agents, "round_robin", runtime=runtime).session()
    answers = [await session.run_async("Hi") for _ in range(3)]
    assert [(each.text, each.agent) for each in answers] == [("1", "a"), ("2", "c"), ("3", "a")]


@pytest.mark.parametrize("by_name", [True, False])
async def test_a_function_chooses_by_the_request(runtime: Runtime, by_name: bool) -> None:
    seen: list[str] = []

    def choose(text: str, agents: list[Agent]) -> Agent | str:
        seen.append(text)
        agents.reverse()
        chosen = agents[0] if "money" in text else agents[1]
        return (chosen.name or "") if by_name else chosen

    ann, bob = agent("ann", "Ann.", "Ann."), agent("bob", "Bob.", DOWN)
    session = AgentRouter([ann, bob], choose, runtime=runtime).session()
    assert (await session.run_async("hello")).agent == "ann"
    assert (await session.run_async("money")).agent == "bob"
    assert (await session.run_async("money again")).agent == "ann"
    assert seen == ["hello", "money", "money again"]


@pytest.mark.parametrize("chosen", [None, "nobody", 7, agent("stranger", "Hi.")])
async def test_a_function_that_chooses_nonsense_is_an_error_and_nothing_happens(
    runtime: Runtime, chosen: Any
) -> None:
    router = AgentRouter([agent("ann", "Ann.")], lambda text, agents: chosen, runtime=runtime)
    session = router.session()
    with pytest.raises(InvalidInput, match="no agent of this router"):
        await session.run_async("Hi")
    assert await session.events() == []


async def test_a_function_that_is_asynchronous_is_refused_when_it_is_asked(
    runtime: Runtime,
) -> None:
    made: list[Coroutine[Any, Any, str]] = []

    async def later() -> str:
        return "ann"

    def choose(text: str, agents: list[Agent]) -> Any:
        made.append(later())
        return made[-1]

    session = AgentRouter([agent("ann", "Ann.")], choose, runtime=runtime).session()
    with pytest.raises(InvalidInput, match="coroutine"):
        await session.run_async("Hi")
    assert await session.events() == []
    for each in made:
        each.close()


def test_what_cannot_be_routed_is_refused_at_once() -> None:
    ann = agent("ann")
    for agents in ([], [ann, "bob"], "ann"):
        with pytest.raises(InvalidInput, match="list of one agent or more"):
            AgentRouter(agents)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InvalidInput, match="the same name"):
        AgentRouter([ann, agent("ann")])
    with pytest.raises(InvalidInput, match="random"):
        AgentRouter([ann], "random")  # pyright: ignore[reportArgumentType]


async def test_agents_without_names_may_be_routed(runtime: Runtime) -> None:
    agents = [agent(None, DOWN, "1"), agent(None, "2")]
    session = AgentRouter(agents, runtime=runtime).session()
    assert (await session.run_async("Hi")).text == "2"
    assert (await session.run_async("Hi")).text == "1"
    turning = AgentRouter([agent(None, "1"), agent(None, "2")], "round_robin", runtime=runtime)
    other = turning.session()
    assert [(await other.run_async("Hi")).text for _ in range(2)] == ["1", "2"]


# -- streams


async def test_a_stream_that_fails_before_its_first_word_is_answered_by_the_next(
    runtime: Runtime, world: World
) -> None:
    ann = agent("ann", ["Let me see. ", call("look")], DOWN, tools=world.tools)
    session = AgentRouter([ann, agent("bob", "Bob here.")], runtime=runtime).session()
    stream = session.stream_async("Hi")
    events = [event async for event in stream]
    assert "".join(event.text for event in events) == "Let me see. Bob here."
    assert "error" not in [event.type for event in events]
    assert stream.response.agent == "bob"
    assert world.ran == ["ann looks"]


async def test_a_stream_that_fails_after_a_word_raises_and_asks_nobody_else(
    runtime: Runtime,
) -> None:
    pause = Pause()
    ann, bob = agent("ann", ["Half an ", pause, DOWN], "Back."), agent("bob", "Bob.")
    session = AgentRouter([ann, bob], runtime=runtime).session()
    events: list[StreamEvent] = []
    stream = session.stream_async("Hi")
    async for event in stream:
        events.append(event)
        if event.text == "an ":
            break
    pause.release()
    with pytest.raises(ModelError, match="ann is down"):
        await drain(stream, events)
    assert [event.type for event in events] == [
        "turn_started",
        "text_delta",
        "text_delta",
        "error",
    ]
    assert model_of(bob).requests == []
    assert await check_whole(session) == []
    assert (await session.run_async("Again")).text == "Back."


async def test_without_a_listener_the_next_answers_also_after_a_word(runtime: Runtime) -> None:
    ann, bob = agent("ann", ["Half an ", DOWN]), agent("bob", "Bob.")
    session = AgentRouter([ann, bob], runtime=runtime).session()
    assert (await session.run_async("Hi")).text == "Bob."
    assert said(await check_whole(session)) == [("user", "Hi"), ("assistant", "Bob.")]


# -- the floor


async def test_a_specialist_that_got_the_floor_keeps_it(tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path / 'x.db'}"

    def router(*hers: Any, his: Any = (), theirs: Any = ()) -> AgentRouter:
        eve = agent("eve", *theirs)
        return AgentRouter([agent("ann", *hers, handoffs=[eve]), agent("bob", *his)])

    async with Runtime(address) as runtime:
        made = router(call("transfer_to_eve"), theirs=["Eve here.", "Eve again."])
        session = made.session("s", runtime=runtime)
        assert (await session.run_async("Hi")).agent == "eve"
        assert (await session.run_async("More")).text == "Eve again."
    async with Runtime(address) as runtime:
        session = router(theirs=["Eve after a restart."]).session("s", runtime=runtime)
        assert session.floor == "eve"
        assert (await session.run_async("And?")).text == "Eve after a restart."


async def test_a_specialist_whose_model_fails_is_stood_in_for(runtime: Runtime) -> None:
    eve = agent("eve", DOWN)
    ann, bob = agent("ann", call("transfer_to_eve"), handoffs=[eve]), agent("bob", "Bob here.")
    session = AgentRouter([ann, bob], runtime=runtime).session()
    response = await session.run_async("Hi")
    assert (response.text, response.agent) == ("Bob here.", "bob")
    await check_whole(session)


async def test_who_failed_after_a_handoff_within_the_router_is_not_asked_again(
    runtime: Runtime,
) -> None:
    bob = agent("bob", DOWN, ModelError("asked twice"))
    ann = agent("ann", call("transfer_to_bob"), handoffs=[bob])
    session = AgentRouter([ann, bob], runtime=runtime).session()
    with pytest.raises(ModelError):
        await session.run_async("Hi")
    assert len(model_of(bob).requests) == 1


async def test_a_conversation_is_opened_again_with_other_agents(tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path / 'x.db'}"
    async with Runtime(address) as runtime:
        first = AgentRouter([agent("ann", DOWN), agent("bob", "Bob here.")])
        await first.session("s", runtime=runtime).run_async("Hi")
    async with Runtime(address) as runtime:
        last = agent("eve", "Eve here.")
        session = AgentRouter([last]).session("s", runtime=runtime)
        assert (await session.run_async("More")).text == "Eve here."
        assert said(model_of(last).last_request.messages)[:2] == [
            ("user", "Hi"),
            ("assistant", "Bob here."),
        ]
        await check_whole(session)


async def test_a_repeated_request_is_not_routed_again(runtime: Runtime) -> None:
    ann, bob = agent("ann", DOWN), agent("bob", "7", output_type=int)
    session = AgentRouter([ann, bob], runtime=runtime).session()
    first = await session.run_async("How many?", idempotency_key="k")
    again = await session.run_async("How many?", idempotency_key="k")
    assert (first.output, again.output, again.agent) == (7, 7, "bob")
    assert len(model_of(bob).requests) == 1


async def test_many_sessions_of_one_router_fail_over_at_once(runtime: Runtime) -> None:
    ann = agent("ann", *[ModelError("down")] * 20)
    bob = agent("bob", *["Bob."] * 20)
    router = AgentRouter([ann, bob], runtime=runtime)
    sessions = [router.session(f"s{n}") for n in range(20)]
    answers = await asyncio.gather(*(each.run_async("Hi") for each in sessions))
    assert {each.agent for each in answers} == {"bob"}
    for each in sessions:
        assert said(await check_whole(each)) == [("user", "Hi"), ("assistant", "Bob.")]


def test_a_router_in_a_script() -> None:
    router = AgentRouter([agent("ann", DOWN, DOWN, DOWN), agent("bob", "1", "2", "3")])
    session = router.session()
    assert session.run("Hi").agent == "bob"
    stream = session.stream("Hi")
    assert "".join(event.text for event in stream) == "2"
    assert router.run_sync("Hi").text == "3"
    with pytest.raises(UsageError):
        session.resume()
