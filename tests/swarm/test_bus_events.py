"""The bus of a client: what happened, in the order of the log, in the form of the page."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from tests.swarm.stage import SWARM, Heard, Stage, Without, soon, swarm_of

from tertulia import Agent, Message, RunContext, Runtime, Swarm, ToolCall, tool
from tertulia.bus import BusEvent
from tertulia.errors import ModelError
from tertulia.swarm import ClientSession, Outgoing
from tertulia.swarm.topics import BUS_NAMES
from tertulia.testing import Pause, ScriptedModel, call

SPECIFIED = [
    *("session.connect", "session.execute", "session.emit", "session.notify", "session.cancel"),
    *("session.dispose", "session.commit-user-message", "session.commit-assistant-message"),
    *("session.commit-system-message", "session.commit-tool-output", "session.commit-flush"),
    *("agent.output", "history.push"),
    *("policy.validate-input", "policy.validate-output"),
    *("policy.ban-client", "policy.unban-client"),
    *("navigation.change", "tool.call", "tool.return", "tool.error"),
    *("state.set", "state.delete", "execution.begin", "execution.end", "rescue.rescue"),
]


def nothing(outgoing: Outgoing) -> None:
    """Take what goes out."""


def open_client(
    stage: Stage, model: ScriptedModel, *policies: Any, **options: Any
) -> tuple[Runtime, ClientSession, Heard]:
    runtime = stage.runtime(swarm_of(model, *policies, **options))
    heard = Heard()
    runtime.bus.listen("ann", "*", heard, size=100_000)
    return runtime, runtime.client_session("ann", SWARM), heard


@tool
async def keep(context: RunContext, value: str) -> str:
    """Keep something."""
    await context.session.set_state("kept", value)
    return "kept"


@tool
def fail() -> str:
    """Fail."""
    raise ZeroDivisionError("no")


# -- the form


async def test_an_event_has_the_fields_of_the_page_and_is_json(stage: Stage) -> None:
    runtime, client, heard = open_client(stage, ScriptedModel("Hello."))
    await client.execute("Hi")
    await runtime.bus.drain()
    (event,) = heard.of("session.execute")
    told = event.to_dict()
    assert set(told) == {
        "type",
        "source",
        "input",
        "output",
        "context",
        "client_id",
        "seq",
        "time",
    }
    assert (told["type"], told["source"], told["client_id"]) == ("execute", "session-bus", "ann")
    assert told["input"] == {"message": "Hi", "mode": "user"}
    assert told["output"] == {"message": "Hello.", "kind": "answer"}
    assert told["context"] == {"swarm_name": SWARM, "agent_name": "triage"}
    assert msgspec.json.decode(msgspec.json.encode(told)) == told


async def test_every_event_names_its_client_and_its_swarm_and_can_be_json(stage: Stage) -> None:
    runtime, client, heard = open_client(
        stage, ScriptedModel(call("keep", value="x"), "Hello."), Without("acme"), tools=[keep]
    )
    await client.execute("Hi")
    await runtime.bus.drain()
    assert heard.events
    for event in heard.events:
        assert (event.client_id, event.context["swarm_name"]) == ("ann", SWARM)
        assert event.source.endswith("-bus")
        msgspec.json.encode(event.to_dict())


async def test_events_of_the_log_have_its_positions_and_times(stage: Stage) -> None:
    runtime, client, heard = open_client(
        stage, ScriptedModel(call("keep", value="x"), "Hello."), tools=[keep]
    )
    await client.execute("Hi")
    await runtime.bus.drain()
    log = {event.seq: event for event in await client.session.events()}
    named = {
        "history.push": "message.added",
        "agent.output": "message.added",
        "execution.begin": "turn.started",
        "execution.end": "turn.completed",
        "tool.call": "tool.called",
        "tool.return": "tool.returned",
        "state.set": "state.set",
        "session.execute": "turn.completed",
    }
    assert {event.topic for event in heard.events} == set(named)
    for event in heard.events:
        assert event.seq is not None
        assert log[event.seq].type == named[event.topic]
        assert event.time is not None


# -- the order


async def test_the_order_of_a_client_is_the_order_of_its_log(stage: Stage) -> None:
    steps = [step for _ in range(5) for step in (call("keep", value="x"), "Hello.")]
    runtime, client, heard = open_client(stage, ScriptedModel(*steps), tools=[keep])

    async def busy() -> None:
        for number in range(5):
            await client.commit_system_message(f"note {number}")
            await client.session.set_state(f"k{number}", number)

    asks = [client.execute(f"m{number}") for number in range(5)]
    await soon(asyncio.gather(*asks, busy()))
    await runtime.bus.drain()
    seqs = [event.seq for event in heard.events if event.seq is not None]
    assert len(seqs) > 50
    assert seqs == sorted(seqs)
    pushed = [event.seq for event in heard.of("history.push")]
    messages = [event.seq for event in await client.session.events(types=["message.added"])]
    assert pushed == messages


async def test_each_client_hears_only_of_itself_and_the_star_hears_of_all(stage: Stage) -> None:
    runtime = stage.runtime(swarm_of(ScriptedModel(*["x"] * 6)))
    ann, everyone = Heard(), Heard()
    runtime.bus.listen("ann", "*", ann)
    runtime.bus.listen("*", "session.execute", everyone)
    clients = [runtime.client_session(name, SWARM) for name in ("ann", "bob", "eve")]
    await soon(asyncio.gather(*(client.execute("Hi") for client in clients * 2)))
    await runtime.bus.drain()
    assert {event.client_id for event in ann.events} == {"ann"}
    assert (
        sorted(event.client_id for event in everyone.events)
        == ["ann"] * 2 + ["bob"] * 2 + ["eve"] * 2
    )


async def test_events_of_two_swarms_of_one_client_can_be_told_apart(stage: Stage) -> None:
    runtime = stage.runtime(swarm_of(ScriptedModel("a")), swarm_of(ScriptedModel("b"), name="help"))
    heard = Heard()
    runtime.bus.listen("ann", "session.execute", heard)
    await runtime.client_session("ann", SWARM).execute("Hi")
    await runtime.client_session("ann", "help").execute("Hi")
    await runtime.bus.drain()
    assert [event.context["swarm_name"] for event in heard.events] == [SWARM, "help"]


# -- every topic


def test_the_topics_that_are_published_are_those_that_were_specified() -> None:
    assert sorted(BUS_NAMES) == sorted(SPECIFIED)


async def test_every_topic_occurs_in_the_life_of_a_client(stage: Stage) -> None:
    pause = Pause()
    opened = ToolCall("open_1", "look", {})
    triage_model = ScriptedModel(
        call("keep", value="x"),
        "kept",
        call("fail"),
        "failed",
        "Go to acme.",
        "",
        "not empty",
        [pause, "never"],
    )
    triage = Agent(name="triage", model=triage_model, tools=[keep, fail])
    sales = Agent(name="sales", model=ScriptedModel("sold"))
    swarm = Swarm(SWARM, agents=[triage, sales], policies=[Without("acme")])
    runtime = stage.runtime(swarm)
    heard = Heard()
    runtime.bus.listen("ann", "*", heard, size=100_000)
    client = runtime.client_session("ann", SWARM)
    client.connect(nothing)
    for text in ("keep", "fail", "where", "nothing"):
        await client.execute(text)
    await client.execute("acme")
    await client.emit("Hello")
    await client.notify("Typing")
    await client.commit_user_message("u")
    await client.commit_assistant_message("a")
    await client.commit_system_message("s")
    await client.session.send_message(Message.assistant(tool_calls=[opened]))
    await client.commit_tool_output("open_1", "t")
    await client.commit_flush()
    await client.session.set_state("k", 1)
    await client.session.delete_state("k")
    await swarm.ban("ann")
    await swarm.unban("ann")
    task = asyncio.create_task(client.execute("wait"))
    await pause.reached()
    await client.cancel()
    await soon(task)
    await client.change_agent("sales")
    await client.dispose()
    assert set(SPECIFIED) - set(heard.topics) == set()
    assert set(heard.topics) <= set(SPECIFIED)


async def test_an_execution_begins_and_ends_once_whatever_becomes_of_it(stage: Stage) -> None:
    pause = Pause()
    model = ScriptedModel("fine", ModelError("down"), [pause, "never"])
    runtime, client, heard = open_client(stage, model, rescue="raise")
    await client.execute("One")
    with pytest.raises(ModelError):
        await client.execute("Two")
    task = asyncio.create_task(client.execute("Three"))
    await pause.reached()
    await client.cancel()
    await soon(task)
    await runtime.bus.drain()
    assert len(heard.of("execution.begin")) == 3
    outcomes = [event.output["outcome"] for event in heard.of("execution.end")]
    assert outcomes == ["completed", "failed", "interrupted"]
    kinds = [event.output["kind"] for event in heard.of("session.execute")]
    assert kinds == ["answer", "error", "cancelled"]
    asked = [event.input["message"] for event in heard.of("session.execute")]
    assert asked == ["One", "Two", "Three"]


async def test_an_execution_of_a_tool_names_the_tool_and_what_became_of_it(stage: Stage) -> None:
    runtime, client, heard = open_client(
        stage, ScriptedModel(call("fail"), "sorry"), tools=[fail, keep]
    )
    await client.execute("Hi")
    await runtime.bus.drain()
    assert [event.context["tool_name"] for event in heard.of("tool.call")] == ["fail"]
    (failed,) = heard.of("tool.error")
    assert failed.context["tool_name"] == "fail"
    assert "ZeroDivisionError" in str(failed.output)


async def test_what_was_said_by_hand_is_no_output_of_an_agent(stage: Stage) -> None:
    runtime, client, heard = open_client(stage, ScriptedModel())
    await client.commit_assistant_message("by hand")
    await runtime.bus.drain()
    assert heard.topics == ["history.push", "session.commit-assistant-message"]


# -- listeners


async def test_a_listener_that_raises_disturbs_nobody(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(event: BusEvent) -> None:
        raise ZeroDivisionError("in the listener")

    runtime = stage.runtime(swarm_of(ScriptedModel("a", "b")))
    heard = Heard()
    runtime.bus.listen("ann", "session.*", broken)
    runtime.bus.listen("ann", "session.execute", heard)
    client = runtime.client_session("ann", SWARM)
    assert await client.execute("Hi") == "a"
    assert await client.execute("Hi") == "b"
    await runtime.bus.drain()
    assert len(heard.events) == 2
    assert "in the listener" in caplog.text


async def test_a_listener_that_never_comes_back_holds_up_no_turn_and_no_disposal(
    stage: Stage,
) -> None:
    held = Pause()

    async def slow(event: BusEvent) -> None:
        await held.hold()

    runtime = stage.runtime(swarm_of(ScriptedModel(*["a"] * 5)))
    heard = Heard()
    runtime.bus.listen("ann", "*", slow)
    runtime.bus.listen("ann", "session.*", heard)
    client = runtime.client_session("ann", SWARM)
    for _ in range(5):
        assert await soon(client.execute("Hi")) == "a"
    await soon(client.dispose())
    assert heard.topics == ["session.execute"] * 5 + ["session.dispose"]
    held.release()


async def test_a_listener_may_execute_and_hears_of_that_too(stage: Stage) -> None:
    runtime = stage.runtime(swarm_of(ScriptedModel("one", "two")))
    client = runtime.client_session("ann", SWARM)
    answers: list[str] = []

    async def again(event: BusEvent) -> None:
        if event.input["message"] == "Hi":
            answers.append(await client.execute("Again"))

    runtime.bus.listen("ann", "session.execute", again)
    assert await soon(client.execute("Hi")) == "one"
    await soon(runtime.bus.drain())
    assert answers == ["two"]


async def test_one_event_can_be_waited_for_with_a_filter(stage: Stage) -> None:
    runtime, client, _ = open_client(stage, ScriptedModel("one", "two", "three"))
    once = runtime.bus.once(
        "ann", "session.execute", lambda event: event.output["message"] == "two"
    )
    for text in ("a", "b", "c"):
        await client.execute(text)
    event = await soon(once)
    assert (event.input["message"], event.output["message"]) == ("b", "two")


async def test_events_can_be_iterated_as_they_come(stage: Stage) -> None:
    runtime, client, _ = open_client(stage, ScriptedModel("one", "two"))
    got: list[BusEvent] = []
    async with runtime.bus.events("ann", "agent.output") as events:
        await client.execute("a")
        await client.execute("b")
        async for event in events:
            got.append(event)
            if len(got) == 2:
                break
    assert [event.output["message"] for event in got] == ["one", "two"]


async def test_events_of_ones_own_go_to_the_same_listeners(stage: Stage) -> None:
    runtime, _, heard = open_client(stage, ScriptedModel())
    sent = {"type": "placed", "source": "order-bus", "input": {"number": 7}}
    await runtime.bus.emit("ann", sent)
    await runtime.bus.drain()
    (event,) = heard.events
    assert (event.topic, event.input, event.seq) == ("order.placed", {"number": 7}, None)
    assert event.time is not None


async def test_what_is_refused_on_the_way_in_is_no_execution_that_begins(stage: Stage) -> None:
    runtime, client, heard = open_client(stage, ScriptedModel(), Without("acme"))
    await client.execute("acme")
    await runtime.bus.drain()
    assert heard.topics == ["policy.validate-input", "session.execute"]
    assert heard.events[-1].output["kind"] == "ban"


def seqs(events: Sequence[BusEvent]) -> list[int | None]:
    return [event.seq for event in events]


async def test_who_disposes_and_comes_back_is_heard_once_of_each_thing(stage: Stage) -> None:
    runtime, client, heard = open_client(stage, ScriptedModel("a", "b"))
    await client.execute("Hi")
    await client.dispose()
    await runtime.client_session("ann", SWARM).execute("Again")
    await runtime.bus.drain()
    assert len(heard.of("session.execute")) == 2
    pushed = seqs(heard.of("history.push"))
    assert len(pushed) == len(set(pushed)) == 4


# -- whose words an event has


async def test_what_was_emitted_before_a_turn_is_no_answer_of_the_turn(stage: Stage) -> None:
    runtime, client, heard = open_client(stage, ScriptedModel(ModelError("down")), rescue="raise")
    await client.emit("Your parcel is here.")
    with pytest.raises(ModelError):
        await client.execute("Hi")
    await runtime.bus.drain()
    (executed,) = heard.of("session.execute")
    assert executed.output == {"message": "", "kind": "error"}


async def test_a_ban_by_a_policy_comes_after_its_verdict_and_has_its_place(stage: Stage) -> None:
    runtime, client, heard = open_client(stage, ScriptedModel(), Without("acme", auto_ban=True))
    await client.execute("acme?")
    await runtime.bus.drain()
    topics = [event.topic for event in heard.events if event.source == "policy-bus"]
    assert topics == ["policy.validate-input", "policy.ban-client"]
    positions = [event.seq for event in heard.events if event.source == "policy-bus"]
    assert positions == sorted(filter(None, positions))


async def test_a_fresh_session_of_a_client_says_nothing_twice(stage: Stage) -> None:
    pause = Pause()
    runtime, client, heard = open_client(stage, ScriptedModel([pause, "late"]))
    task = asyncio.create_task(client.execute("Hi"))
    await pause.reached()
    disposal = asyncio.create_task(client.dispose())
    await asyncio.sleep(0)
    fresh = runtime.client_session(client.client_id, client.swarm)
    await disposal
    await task
    pause.release()
    await runtime.bus.drain()
    assert fresh is not client
    assert len(heard.of("execution.end")) == len(heard.of("session.execute")) == 1
