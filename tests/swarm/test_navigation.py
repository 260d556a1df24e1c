"""Navigation: who has the floor among the agents of a swarm, and the ways to give it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.agents.histories import kinds
from tests.swarm.crews import Crew, check, moves_of
from tests.swarm.stage import SWARM, Heard, Stage, soon, until

from tertulia import Agent, RunContext, Swarm, tool
from tertulia.bus import BusEvent
from tertulia.errors import ModelError, NavigationError, UnknownName
from tertulia.swarm import ClientSession
from tertulia.testing import Pause, ScriptedModel, call


@tool
async def go(context: RunContext, name: str) -> str:
    """Give the floor to an agent."""
    return await client_in(context).change_agent(name, "asked for")


@tool
async def home(context: RunContext) -> str:
    """Give the floor to the default agent."""
    return await client_in(context).change_to_default()


@tool
async def back(context: RunContext) -> str:
    """Give the floor to the agent before."""
    return await client_in(context).change_to_previous()


CLIENTS: dict[str, ClientSession] = {}


def client_in(context: RunContext) -> ClientSession:
    return CLIENTS[context.session.id]


def crew_of(stage: Stage, **options: Any) -> Crew:
    made = Crew(stage, tools=[go, home, back], **options)
    CLIENTS["ann"] = made.client()
    return made


@pytest.fixture(autouse=True)
def forget_clients() -> Any:
    yield
    CLIENTS.clear()


# -- transfers


async def test_a_new_client_is_at_the_first_agent_or_at_the_default(stage: Stage) -> None:
    assert crew_of(stage).client().agent == "triage"
    assert Crew(stage, default="refunds").client().agent == "refunds"


async def test_a_transfer_lets_the_new_agent_answer_the_question_of_the_user(
    stage: Stage,
) -> None:
    crew = crew_of(stage)
    crew.script(triage=call("transfer_to_sales", reason="it is about a price"), sales="Ten euros.")
    client = crew.client()
    answer = await client.execute("What does it cost?")
    assert (answer, answer.agent, answer.kind) == ("Ten euros.", "sales", "answer")
    assert client.agent == "sales"
    asked = crew.asked("sales")
    assert ("user", "What does it cost?") in asked
    assert [text for role, text in asked if role == "user"] == ["What does it cost?"]
    assert all(text.strip() for role, text in asked if role != "assistant")
    assert await moves_of(client) == [("triage", "sales")]
    await check(client)


async def test_the_next_message_goes_to_whom_the_floor_went(stage: Stage) -> None:
    crew = crew_of(stage)
    crew.script(triage=call("transfer_to_sales"), sales=("Ten.", "Eleven."))
    client = crew.client()
    await client.execute("What does it cost?")
    assert (await client.execute("And with tax?")).agent == "sales"
    assert len(crew.models["triage"].requests) == 1


async def test_a_transfer_goes_on_over_several_agents(stage: Stage) -> None:
    crew = crew_of(stage)
    crew.script(
        triage=call("transfer_to_sales"), sales=call("transfer_to_refunds"), refunds="Refunded."
    )
    client = crew.client()
    assert (await client.execute("Money back")).agent == "refunds"
    assert await moves_of(client) == [("triage", "sales"), ("sales", "refunds")]
    await check(client)


async def test_a_transfer_that_comes_back_in_one_turn_is_refused_with_the_route(
    stage: Stage,
) -> None:
    crew = crew_of(stage)
    crew.script(
        triage=call("transfer_to_sales"), sales=(call("transfer_to_triage"), "I do it myself.")
    )
    client = crew.client()
    answer = await client.execute("Hello")
    assert (answer, answer.agent) == ("I do it myself.", "sales")
    role, text = crew.asked("sales")[-1]
    assert role == "tool"
    assert "triage -> sales -> triage" in text
    assert await moves_of(client) == [("triage", "sales")]
    await check(client)


async def test_the_way_back_is_free_in_the_next_turn(stage: Stage) -> None:
    crew = crew_of(stage)
    crew.script(
        triage=(call("transfer_to_sales"), "Welcome back."),
        sales=("Ten.", call("transfer_to_triage")),
    )
    client = crew.client()
    await client.execute("Price?")
    assert (await client.execute("Something else")).agent == "triage"
    assert client.agent == "triage"


async def test_of_two_transfers_at_once_the_first_one_is_made(stage: Stage) -> None:
    crew = crew_of(stage)
    crew.script(triage=[call("transfer_to_sales"), call("transfer_to_refunds")], sales="Here.")
    client = crew.client()
    assert (await client.execute("Hello")).agent == "sales"
    assert await moves_of(client) == [("triage", "sales")]
    await check(client)


async def test_the_route_is_that_of_the_running_turn(stage: Stage) -> None:
    crew, pause = crew_of(stage), Pause()
    crew.script(triage=call("transfer_to_sales"), sales=[pause, "Here."])
    client = crew.client()
    assert client.route == []
    task = asyncio.ensure_future(client.execute("Hello"))
    await pause.reached()
    assert client.route == ["triage", "sales"]
    pause.release()
    await task
    assert client.route == []


# -- change_agent and its like, outside of turns


async def test_the_agent_is_changed_outside_of_turns(stage: Stage) -> None:
    crew = crew_of(stage)
    client = crew.client()
    crew.script(refunds="Refunds here.")
    assert await client.change_agent("refunds", "the user clicked") == "refunds"
    assert client.agent == "refunds"
    assert (await client.execute("Hello")).agent == "refunds"
    [event] = await client.session.events(types=["handoff"])
    assert event.body == {"from": "triage", "to": "refunds", "reason": "the user clicked"}


async def test_back_goes_down_the_stack_and_stays_at_its_end(stage: Stage) -> None:
    client = crew_of(stage).client()
    for name in ("sales", "refunds", "triage"):
        await client.change_agent(name)
    visited = [await client.change_to_previous() for _ in range(4)]
    assert visited == ["refunds", "sales", "triage", "triage"]
    assert client.agent == "triage"


async def test_after_a_return_another_way_is_remembered(stage: Stage) -> None:
    client = crew_of(stage).client()
    await client.change_agent("sales")
    await client.change_to_previous()
    await client.change_agent("refunds")
    assert await client.change_to_previous() == "triage"
    assert await client.change_to_previous() == "triage"


async def test_back_where_nobody_was_before_stays_and_writes_nothing(stage: Stage) -> None:
    crew = crew_of(stage)
    client = crew.client()
    assert await client.change_to_previous() == "triage"
    crew.script(triage="Hello.")
    await client.execute("Hello")
    assert await moves_of(client) == []


async def test_the_default_agent_can_be_gone_to_and_come_back_from(stage: Stage) -> None:
    client = crew_of(stage).client()
    await client.change_agent("sales")
    assert await client.change_to_default() == "triage"
    assert await client.change_to_previous() == "sales"


async def test_going_to_who_has_the_floor_is_no_change(stage: Stage) -> None:
    client = crew_of(stage).client()
    await client.change_agent("sales")
    await client.change_agent("sales")
    assert await moves_of(client) == [("triage", "sales")]
    assert await client.change_to_previous() == "triage"


async def test_an_unknown_agent_is_refused_and_those_that_exist_are_listed(stage: Stage) -> None:
    client = crew_of(stage).client()
    with pytest.raises(UnknownName, match="triage, sales, refunds"):
        await client.change_agent("nobody")
    assert client.agent == "triage"


# -- from inside of a turn


async def test_a_tool_that_changes_the_agent_lets_the_new_one_answer(stage: Stage) -> None:
    crew = crew_of(stage)
    crew.script(triage=call("go", name="sales"), sales="Sales here.")
    client = crew.client()
    answer = await client.execute("Hello")
    assert (answer, answer.agent, client.agent) == ("Sales here.", "sales", "sales")
    assert ("user", "Hello") in crew.asked("sales")
    assert len(crew.models["triage"].requests) == 1
    await check(client)


async def test_a_tool_can_go_back_to_the_agent_of_an_earlier_turn(stage: Stage) -> None:
    crew = crew_of(stage)
    client = crew.client()
    await client.change_agent("refunds")
    crew.script(refunds=call("back"), triage="Triage here.")
    assert (await client.execute("Hello")).agent == "triage"
    assert await moves_of(client) == [("triage", "refunds"), ("refunds", "triage")]


async def test_a_tool_can_go_to_the_default_agent(stage: Stage) -> None:
    crew = crew_of(stage)
    client = crew.client()
    await client.change_agent("sales")
    crew.script(sales=call("home"), triage="Triage here.")
    assert (await client.execute("Hello")).agent == "triage"


@pytest.mark.parametrize("way", [call("go", name="triage"), call("home"), call("back")])
async def test_a_tool_that_comes_back_in_one_turn_is_refused(stage: Stage, way: Any) -> None:
    crew = crew_of(stage)
    crew.script(triage=call("go", name="sales"), sales=(way, "I stay."))
    client = crew.client()
    answer = await client.execute("Hello")
    assert (answer, answer.agent, client.agent) == ("I stay.", "sales", "sales")
    role, text = crew.asked("sales")[-1]
    assert role == "tool"
    assert "triage -> sales -> triage" in text
    assert await moves_of(client) == [("triage", "sales")]


async def test_a_tool_and_a_transfer_share_one_route(stage: Stage) -> None:
    crew = crew_of(stage)
    crew.script(
        triage=call("transfer_to_sales"),
        sales=call("go", name="refunds"),
        refunds=(call("transfer_to_sales"), "I stay."),
    )
    client = crew.client()
    assert (await client.execute("Hello")).agent == "refunds"
    assert await moves_of(client) == [("triage", "sales"), ("sales", "refunds")]


async def test_one_round_cannot_go_there_and_back_by_a_tool_and_a_transfer(stage: Stage) -> None:
    crew = crew_of(stage)
    crew.script(
        triage=[call("go", name="sales"), call("transfer_to_refunds")],
        sales="Sales.",
        refunds="Refunds.",
    )
    client = crew.client()
    answer = await client.execute("Hello")
    assert answer.agent == client.agent
    await check(client)


async def test_a_transfer_after_a_tool_that_moved_is_noted_from_whom_the_floor_came(
    stage: Stage,
) -> None:
    crew = crew_of(stage)
    crew.script(triage=[call("go", name="sales"), call("transfer_to_refunds")], refunds="Here.")
    client = crew.client()
    await client.execute("Hello")
    assert await moves_of(client) == [("triage", "sales"), ("sales", "refunds")]
    assert await client.change_to_previous() == "sales"


async def test_an_error_of_navigation_has_the_route_and_says_when(stage: Stage) -> None:
    caught: list[Exception] = []

    @tool
    async def there_and_back(context: RunContext) -> str:
        """Try."""
        client = client_in(context)
        await client.change_agent("sales")
        try:
            await client.change_agent("triage")
        except NavigationError as error:
            caught.append(error)
        return "tried"

    crew = Crew(stage, tools=[there_and_back])
    CLIENTS["ann"] = crew.client()
    crew.script(triage=call("there_and_back"), sales="Sales.")
    assert (await crew.client().execute("Hello")).agent == "sales"
    assert len(caught) == 1
    assert "when the turn has ended" in str(caught[0])


@pytest.mark.parametrize("name", ["sales", "triage"])
async def test_a_tool_cannot_go_on_and_return_in_one_round(stage: Stage, name: str) -> None:
    """The agents that a tool passes on its way are of the route, too."""

    @tool
    async def wander(context: RunContext) -> str:
        """Try."""
        client = client_in(context)
        await client.change_agent("sales")
        await client.change_agent("refunds")
        return await client.change_agent(name)

    crew = Crew(stage, tools=[wander])
    CLIENTS["ann"] = crew.client()
    crew.script(triage=call("wander"), refunds="Refunds.", sales="Sales.")
    answer = await crew.client().execute("Hello")
    assert (answer.agent, crew.client().agent) == ("refunds", "refunds")
    assert await moves_of(crew.client()) == [("triage", "sales"), ("sales", "refunds")]


# -- what lasts


async def test_the_floor_and_the_way_back_outlast_a_restart(durable: Stage) -> None:
    crew = crew_of(durable)
    client = crew.client()
    await client.change_agent("sales")
    await client.change_agent("refunds")
    await crew.runtime.close()
    again = crew_of(durable)
    client = again.client()
    again.script(refunds="Still me.")
    assert (await client.execute("Hello")).agent == "refunds"
    assert await client.change_to_previous() == "sales"
    assert await client.change_to_previous() == "triage"
    assert await client.change_to_previous() == "triage"


async def test_after_a_restart_the_agent_is_known_once_it_was_awaited(durable: Stage) -> None:
    crew = crew_of(durable)
    await crew.client().change_agent("refunds")
    await crew.runtime.close()
    client = await crew_of(durable).client()
    assert client.agent == "refunds"


async def test_a_turn_that_fails_leaves_the_floor_where_it_was(stage: Stage) -> None:
    crew = crew_of(stage, rescue="raise")
    client = crew.client()
    await client.change_agent("sales")
    crew.script(sales=call("transfer_to_refunds"), refunds=ModelError("down"))
    with pytest.raises(ModelError):
        await client.execute("Hello")
    assert client.agent == "sales"
    assert await client.change_to_previous() == "triage"
    crew.script(triage="Here.")
    assert (await client.execute("Again")).agent == "triage"
    await check(client)


async def test_a_rewind_takes_the_floor_and_the_way_back_with_it(stage: Stage) -> None:
    crew = crew_of(stage)
    client = crew.client()
    await client.change_agent("sales")
    crew.script(sales="One.")
    await client.execute("First")
    here = (await client.session.events())[-1].seq
    await client.change_agent("refunds")
    await client.change_agent("triage")
    await client.session.rewind(to=here)
    assert client.agent == "sales"
    assert await client.change_to_previous() == "triage"
    assert await client.change_to_previous() == "triage"


async def test_a_fork_has_the_floor_and_the_way_back_of_its_point(stage: Stage) -> None:
    crew = crew_of(stage)
    client = crew.client()
    await client.change_agent("sales")
    crew.script(sales="One.")
    await client.execute("First")
    fork = await client.session.fork()
    await client.change_agent("refunds")
    assert fork.floor == "sales"
    other = crew.runtime.clients.get("ann-2", crew.swarm, fork)
    assert other.agent == "sales"
    assert await other.change_to_previous() == "triage"
    assert client.agent == "refunds"


async def test_an_agent_that_left_the_swarm_gives_the_floor_to_the_default(
    durable: Stage,
) -> None:
    crew = crew_of(durable)
    await crew.client().change_agent("sales")
    await crew.client().change_agent("refunds")
    await crew.runtime.close()
    model = ScriptedModel("I am new here.")
    smaller = Swarm(SWARM, agents=[Agent(name="front", model=model), Agent("x", ScriptedModel())])
    client = durable.runtime(smaller).client_session("ann", SWARM)
    assert client.agent == "front"
    answer = await client.execute("Hello")
    assert (answer.agent, client.agent) == ("front", "front")
    assert await client.change_to_previous() == "front"
    assert await client.change_agent("x") == "x"
    assert await client.change_to_previous() == "front"


@tool(requires_approval=True)
async def refund() -> str:
    """Give money back."""
    return "refunded"


@pytest.mark.parametrize("first", [call("transfer_to_sales"), call("go", name="sales")])
async def test_a_route_that_returns_is_refused_also_after_a_restart_in_its_middle(
    durable: Stage, first: Any
) -> None:
    def opened() -> Crew:
        crew = Crew(durable, tools=[go, refund])
        CLIENTS["ann"] = crew.client()
        return crew

    crew = opened()
    crew.script(triage=first, sales=call("refund"))
    pending = await crew.client().execute("Money back")
    assert (pending.kind, pending.agent) == ("pending", "sales")
    await crew.runtime.close()

    again = opened()
    client = again.client()
    [waiting] = client.session.pending
    client.session.approve(waiting.id)
    again.script(
        sales=(call("transfer_to_triage"), call("go", name="triage"), "I do it myself."),
        triage="I should not be asked.",
    )
    answer = await client.resume()
    assert (answer, answer.agent, client.agent) == ("I do it myself.", "sales", "sales")
    refused = [text for _, text in again.asked("sales") if "triage -> sales -> triage" in text]
    assert len(refused) == 2
    assert await moves_of(client) == [("triage", "sales")]
    await check(client)


# -- who is told


async def test_the_callback_and_the_bus_are_told_of_each_change_once(stage: Stage) -> None:
    told: list[tuple[str, BusEvent]] = []

    async def on_agent_changed(client: ClientSession, event: BusEvent) -> None:
        told.append((client.agent, event))

    crew = crew_of(stage, on_agent_changed=on_agent_changed)
    client, heard = crew.client(), Heard()
    client.listen("navigation.*", heard)
    await client.change_agent("sales", "clicked")
    assert [agent for agent, _ in told] == ["sales"]
    crew.script(sales=call("transfer_to_refunds"), refunds="Refunds.")
    await client.execute("Hello")
    await client.change_to_previous()
    changes = [(e.output["from"], e.output["to"], e.context["agent_name"]) for _, e in told]
    assert changes == [
        ("triage", "sales", "sales"),
        ("sales", "refunds", "refunds"),
        ("refunds", "sales", "sales"),
    ]
    await soon(until_heard(heard, 3))
    assert [event.output for event in heard.of("navigation.change")] == [e.output for _, e in told]


async def until_heard(heard: Heard, count: int) -> None:
    await until(lambda: len(heard.events) >= count)


async def test_a_callback_that_fails_changes_nothing(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    def on_agent_changed(client: ClientSession, event: BusEvent) -> None:
        raise RuntimeError("mine")

    client = crew_of(stage, on_agent_changed=on_agent_changed).client()
    assert await client.change_agent("sales") == "sales"
    assert client.agent == "sales"
    assert "on_agent_changed" in caplog.text


async def test_a_refused_change_is_not_told(stage: Stage) -> None:
    told: list[BusEvent] = []

    def on_agent_changed(client: ClientSession, event: BusEvent) -> None:
        told.append(event)

    crew = crew_of(stage, on_agent_changed=on_agent_changed)
    crew.script(
        triage=call("transfer_to_sales"), sales=(call("transfer_to_triage"), "I do it myself.")
    )
    await crew.client().execute("Hello")
    assert [event.output["to"] for event in told] == ["sales"]


async def test_clients_are_each_at_an_agent_of_their_own(stage: Stage) -> None:
    crew = crew_of(stage)
    ann, bob = crew.client("ann"), crew.client("bob")
    await ann.change_agent("sales")
    assert (ann.agent, bob.agent) == ("sales", "triage")
    assert "handoff" in await kinds(ann.session)


# -- whose turn it is


async def test_a_task_that_a_tool_left_behind_has_turns_of_its_own(stage: Stage) -> None:
    go_on = asyncio.Event()
    left: list[asyncio.Task[Any]] = []

    async def later() -> str:
        await go_on.wait()
        return await crew.client().execute("Second")

    @tool
    async def leave() -> str:
        """Leave a task behind."""
        left.append(asyncio.create_task(later()))
        return "left"

    crew = Crew(stage, tools=[leave, go])
    triage = (call("leave"), call("go", name="sales"), "Back at triage.")
    crew.script(triage=triage, sales=("At sales.", call("go", name="triage")))
    client = CLIENTS["ann"] = crew.client()
    assert await client.execute("First") == "At sales."
    go_on.set()
    assert await soon(left[0]) == "Back at triage."
    assert client.agent == "triage"


async def test_the_route_of_a_client_says_nothing_of_another_one_that_it_moves(
    stage: Stage,
) -> None:
    @tool
    async def ask_bob() -> str:
        """Let the other client say something."""
        return await crew.client("bob").execute("Please")

    @tool
    async def move_ann() -> str:
        """Give the floor of the first client away."""
        return await crew.client("ann").change_agent("sales")

    crew = Crew(stage, tools=[ask_bob, move_ann])
    crew.script(
        triage=(call("ask_bob"), call("move_ann"), call("transfer_to_sales")),
        sales=("Sold to bob.", "Sold to ann."),
    )
    assert await crew.client("ann").execute("Hello") == "Sold to ann."
    assert await moves_of(crew.client("bob")) == [("triage", "sales")]
    await check(crew.client("ann"))
    await check(crew.client("bob"))
