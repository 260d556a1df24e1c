"""Agents that give the conversation to each other in the middle of a turn."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.agents.histories import bodies, check_valid, check_whole, kinds, said

from tertulia import Agent, RunContext, Runtime, tool
from tertulia.agents import HandoffMade
from tertulia.errors import ConfigurationError, InvalidInput, ModelError
from tertulia.testing.models import Pause, ScriptedModel, call

TO_BOB = call("transfer_to_bob", reason="it is about money")


@tool(read_only=True)
def look(place: str) -> str:
    """Look somewhere."""
    return f"nothing in {place}"


@tool
def charge(cents: int) -> str:
    """Charge the card."""
    return f"charged {cents}"


async def test_the_transfer_tool_says_to_whom_and_asks_why(runtime: Runtime) -> None:
    bob = Agent("Bob & Co", ScriptedModel(), description="Knows about money.")
    model = ScriptedModel("Hi.")
    await (
        Agent("ann", model, tools=[look], handoffs=[bob], runtime=runtime).session().run_async("?")
    )
    look_spec, transfer = model.requests[0].tools
    assert (look_spec.name, transfer.name) == ("look", "transfer_to_Bob_Co")
    assert transfer.description == "Give the conversation to Bob & Co. Knows about money."
    assert transfer.parameters["type"] == "object"
    assert list(transfer.parameters["properties"]) == ["reason"]


async def test_the_new_agent_sees_everything_and_answers_in_the_same_turn(
    runtime: Runtime,
) -> None:
    theirs = ScriptedModel(call("charge", cents=5), "Charged.", "Again.")
    bob = Agent("bob", theirs, instructions="You are Bob.", tools=[charge])
    mine = ScriptedModel(call("look", place="x"), ["One moment.", TO_BOB])
    ann = Agent("ann", mine, instructions="You are Ann.", tools=[look], handoffs=[bob])
    session = ann.session("s", system="Be brief.", runtime=runtime)
    response = await session.run_async("Charge me")
    assert (response.text, response.agent, session.floor) == ("Charged.", "bob", "bob")
    history = await check_whole(session)
    assert len({event.turn for event in await session.events(types="message.added")}) == 1
    by = [(m.role, m.agent) for m in history]
    assert by == [
        ("user", None),
        ("assistant", "ann"),
        ("tool", None),
        ("assistant", "ann"),
        ("tool", None),
        ("assistant", "bob"),
        ("tool", None),
        ("assistant", "bob"),
    ]
    assert said(theirs.requests[0].messages) == said(history[:5])
    assert theirs.requests[0].system == "Be brief.\n\nYou are Bob."
    assert [spec.name for spec in theirs.requests[0].tools] == ["charge"]
    assert response.messages == history
    assert response.usage.requests == 4
    await session.run_async("Again")
    assert len(mine.requests) == 2


async def test_a_handoff_is_in_the_audit_and_in_the_stream_with_its_reason(
    runtime: Runtime,
) -> None:
    bob = Agent("bob", ScriptedModel("Hello, I am Bob."))
    ann = Agent("ann", ScriptedModel(TO_BOB), handoffs=[bob], runtime=runtime)
    session = ann.session()
    events = [event async for event in session.stream_async("Money!")]
    [made] = [event for event in events if event.type == "handoff"]
    assert made.handoff == HandoffMade("ann", "bob", "it is about money")
    types = [event.type for event in events if event.type != "text_delta"]
    assert types == [
        "turn_started",
        "message",
        "tool_call",
        "tool_result",
        "handoff",
        "message",
        "usage",
        "turn_completed",
    ]
    assert "".join(event.text for event in events) == "Hello, I am Bob."
    [body] = await bodies(session, "handoff")
    assert body == {"from": "ann", "to": "bob", "reason": "it is about money"}
    assert (await bodies(session, "usage"))[1]["agent"] == "bob"


async def test_of_two_transfers_in_one_answer_the_first_counts(runtime: Runtime) -> None:
    bob, eve = Agent("bob", ScriptedModel("Bob here.")), Agent("eve", ScriptedModel())
    model = ScriptedModel([TO_BOB, call("transfer_to_eve")])
    session = Agent("ann", model, handoffs=[bob, eve], runtime=runtime).session()
    response = await session.run_async("Hi")
    assert (response.text, session.floor) == ("Bob here.", "bob")
    results = [m for m in await check_whole(session) if m.role == "tool"]
    assert "only one" in results[1].text
    assert [body["to"] for body in await bodies(session, "handoff")] == ["bob"]
    assert len(await bodies(session, "tool.failed")) == 1


async def test_tools_beside_a_transfer_run_before_the_new_agent_speaks(runtime: Runtime) -> None:
    theirs = ScriptedModel("Bob here.")
    model = ScriptedModel([TO_BOB, call("look", place="x"), call("charge", cents=5)])
    ann = Agent("ann", model, tools=[look, charge], handoffs=[Agent("bob", theirs)])
    session = ann.session(runtime=runtime)
    await session.run_async("Hi")
    await check_whole(session)
    check_valid(theirs.requests[0].messages)
    results = {m.text for m in theirs.requests[0].messages if m.role == "tool"}
    assert {"nothing in x", "charged 5"} < results
    assert len(results) == 3


async def test_a_chain_of_handoffs_ends_with_the_last(runtime: Runtime) -> None:
    eve = Agent("eve", ScriptedModel("Eve here."))
    bob = Agent("bob", ScriptedModel(["Not me.", call("transfer_to_eve")]), handoffs=[eve])
    session = Agent("ann", ScriptedModel(TO_BOB), handoffs=[bob], runtime=runtime).session()
    response = await session.run_async("Hi")
    assert (response.text, response.agent, session.floor) == ("Eve here.", "eve", "eve")
    assert [(b["from"], b["to"]) for b in await bodies(session, "handoff")] == [
        ("ann", "bob"),
        ("bob", "eve"),
    ]
    await check_whole(session)


def ping_pong(runtime: Runtime) -> tuple[Agent, Agent, list[ScriptedModel]]:
    models = [
        ScriptedModel(*[call("transfer_to_bob")] * 20, name="of ann"),
        ScriptedModel(*[call("transfer_to_ann")] * 20, name="of bob"),
    ]
    ann = Agent("ann", models[0], handoffs=["bob"], runtime=runtime)
    bob = Agent("bob", models[1], handoffs=[ann], runtime=runtime)
    return ann, bob, models


async def test_ping_pong_ends_with_an_error_and_a_valid_history(runtime: Runtime) -> None:
    ann, bob, models = ping_pong(runtime)
    session = runtime.session("s")
    await Agent("bob", ScriptedModel("Hi.")).run("Hello", session=session)
    before = await session.history()
    bob._make_known(session)  # pyright: ignore[reportPrivateUsage]
    with pytest.raises(ModelError, match="rounds"):
        await ann.run("Hi", session=session)
    assert await check_whole(session) == before
    assert sum(len(model.requests) for model in models) == 11
    ann.model = ScriptedModel("Enough.")
    assert (await ann.run("Again", session=session)).text == "Enough."


async def test_a_handoff_in_a_turn_that_failed_has_not_happened(runtime: Runtime) -> None:
    theirs = ScriptedModel(ModelError("it broke"))
    mine = ScriptedModel("I am Ann.", TO_BOB, "Ann again.")
    ann = Agent("ann", mine, handoffs=[Agent("bob", theirs)], runtime=runtime)
    session = ann.session()
    await session.run_async("Hello")
    before = await session.history()
    with pytest.raises(ModelError, match="it broke"):
        await session.run_async("Money!")
    assert await check_whole(session) == before
    assert session.floor == "ann"
    assert (await session.run_async("Well?")).text == "Ann again."


async def test_a_handoff_in_a_turn_that_did_something_stays(runtime: Runtime) -> None:
    theirs = ScriptedModel(call("charge", cents=5), ModelError("it broke"), "Bob again.")
    bob = Agent("bob", theirs, tools=[charge])
    ann = Agent("ann", ScriptedModel(TO_BOB), handoffs=[bob], runtime=runtime)
    session = ann.session()
    with pytest.raises(ModelError, match="it broke"):
        await session.run_async("Money!")
    assert (await kinds(session))[-1] == "turn.interrupted"
    assert session.floor == "bob"
    await check_whole(session)
    assert (await session.run_async("Well?")).text == "Bob again."


async def test_an_interrupted_answer_is_signed_by_the_agent_that_gave_it(
    runtime: Runtime,
) -> None:
    bob = Agent("bob", ScriptedModel(["I am ", Pause()], "Back."))
    ann = Agent("ann", ScriptedModel(TO_BOB), handoffs=[bob], runtime=runtime)
    session = ann.session()
    async with session.stream_async("Money!") as stream:
        async for event in stream:
            if event.text == "am ":
                break
    history = await check_whole(session)
    assert (history[-1].text, history[-1].agent, session.floor) == ("I am ", "bob", "bob")


async def test_names_are_found_among_the_agents_of_the_session(runtime: Runtime) -> None:
    session = runtime.session("s")
    bob = Agent("bob", ScriptedModel("Bob here."), session=session)
    ann = Agent("ann", ScriptedModel(TO_BOB), session=session, handoffs=["bob"])
    assert (await ann.run("Hi")).agent == bob.name


async def test_a_name_is_found_also_among_those_that_others_hand_over_to(
    runtime: Runtime,
) -> None:
    eve = Agent("eve", ScriptedModel("Eve here."), handoffs=["ann"])
    bob = Agent("bob", ScriptedModel(call("transfer_to_eve")), handoffs=[eve])
    ann = Agent("ann", ScriptedModel(call("transfer_to_eve")), handoffs=[bob, "eve"])
    assert (await ann.session(runtime=runtime).run_async("Hi")).text == "Eve here."


async def test_an_unknown_name_is_an_error_that_lists_those_that_are_known(
    runtime: Runtime,
) -> None:
    session = runtime.session("s")
    model = ScriptedModel("Hi.")
    ann = Agent("ann", model, handoffs=["bib", Agent("eve", model)], session=session)
    bob = Agent("bob", model, session=session)
    with pytest.raises(ConfigurationError, match=r"'bib'.*ann, bob, eve"):
        await ann.run("Hi")
    assert await session.events() == []
    assert model.requests == []
    assert (await bob.run("Hi")).text == "Hi."


async def test_an_unknown_name_further_on_is_an_error_before_anything_happens(
    runtime: Runtime,
) -> None:
    bob = Agent("bob", ScriptedModel("Bob here."), handoffs=["nobody"])
    mine = ScriptedModel(TO_BOB)
    session = Agent("ann", mine, handoffs=[bob], runtime=runtime).session()
    with pytest.raises(ConfigurationError, match="nobody"):
        await session.run_async("Hi")
    assert mine.requests == []
    assert await session.events() == []


@pytest.mark.parametrize("handoffs", [[Agent()], [7], [""], [None], ["bob", Agent("bob")]])
def test_what_nobody_can_hand_over_to_is_refused_at_once(handoffs: list[object]) -> None:
    with pytest.raises(InvalidInput, match="handoffs"):
        Agent("ann", handoffs=handoffs)  # pyright: ignore[reportArgumentType]


async def test_a_tool_with_the_name_of_a_transfer_is_refused(runtime: Runtime) -> None:
    @tool
    def transfer_to_bob() -> str:
        """A tool of one's own."""
        return "no"

    model = ScriptedModel("Hi.")
    with pytest.raises(InvalidInput, match="transfer_to_bob"):
        await Agent(
            "ann",
            model,
            tools=[transfer_to_bob],
            handoffs=[Agent("bob", model)],
            runtime=runtime,
        ).run("Hi")


async def test_state_and_metadata_go_with_the_conversation(runtime: Runtime) -> None:
    @tool
    def note(context: RunContext) -> str:
        """Note something."""
        context.state["noted"] = context.agent
        context.state.temp["seen"] = context.agent
        return "noted"

    @tool
    def read(context: RunContext) -> str:
        """Read what was noted."""
        seen = context.state.temp["seen"]
        return f"{context.agent} {context.state['noted']} {seen} {context.metadata['who']}"

    bob = Agent("bob", ScriptedModel(call("read"), "Done."), tools=[read])
    ann = Agent("ann", ScriptedModel(call("note"), TO_BOB), tools=[note], handoffs=[bob])
    session = ann.session(runtime=runtime)
    await session.run_async("Hi", metadata={"who": "Kim"})
    results = [m.text for m in await check_whole(session) if m.role == "tool"]
    assert results[-1] == "bob ann ann Kim"


async def test_an_output_type_of_the_new_agent_counts(runtime: Runtime) -> None:
    bob = Agent("bob", ScriptedModel("7"), output_type=int)
    ann = Agent("ann", ScriptedModel(TO_BOB, "Text."), handoffs=[bob], runtime=runtime)
    session = ann.session()
    assert (await session.run_async("How many?", idempotency_key="k")).output == 7
    assert (await session.run_async("How many?", idempotency_key="k")).output == 7
    assert (await ann.run("And?", session=session)).output == "Text."


async def test_a_json_call_asks_whoever_answers_at_last(runtime: Runtime) -> None:
    theirs = ScriptedModel("[1, 2]")
    ann = Agent("ann", ScriptedModel(TO_BOB), handoffs=[Agent("bob", theirs)], runtime=runtime)
    response = await ann.session().json_async("Which?", schema=list[int])
    assert response.output == [1, 2]


async def test_settings_of_the_new_agent_are_used(runtime: Runtime) -> None:
    theirs = ScriptedModel("Hi.")
    bob = Agent("bob", theirs, temperature=0.1, max_tokens=9, keep_last=1)
    ann = Agent("ann", ScriptedModel("a", TO_BOB), handoffs=[bob], temperature=0.9)
    session = ann.session(runtime=runtime)
    await session.run_async("before")
    await session.run_async("Money!")
    request = theirs.requests[0]
    assert (request.temperature, request.max_tokens) == (0.1, 9)
    assert [m.text for m in request.messages if m.role == "user"] == ["Money!"]


async def test_many_sessions_hand_over_at_once_and_stay_apart(tmp_path: Path) -> None:
    async with Runtime(f"sqlite:///{tmp_path / 'x.db'}") as runtime:
        bob = Agent("bob", ScriptedModel(*["Bob."] * 20))
        ann = Agent("ann", ScriptedModel(*[TO_BOB] * 10, *["Ann."] * 10), handoffs=[bob])
        sessions = [ann.session(f"s{n}", runtime=runtime) for n in range(10)]
        await asyncio.gather(*(each.run_async("Hi") for each in sessions))
        assert {each.floor for each in sessions} == {"bob"}
        await asyncio.gather(*(ann.run("Hi", session=each) for each in sessions[:5]))
        assert [each.floor for each in sessions] == ["ann"] * 5 + ["bob"] * 5
        for each in sessions:
            await check_whole(each)
