"""Tool calls that wait for a person: what is asked, what is decided, and what runs then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import anyio
import pytest
from tests.agents.histories import bodies, check_valid, check_whole, kinds, said
from tests.agents.shop import Shop, suspended

from tertulia import Agent, AgentRouter, RunContext, Runtime, Session, tool
from tertulia.agents import Response
from tertulia.agents.protocol import ToolCallMade
from tertulia.errors import (
    AccessDenied,
    ApprovalPending,
    InvalidInput,
    SessionBusy,
    SessionNotFound,
    UsageError,
)
from tertulia.testing.models import ScriptedModel, call

AT_ONCE = 5.0


@pytest.fixture
def shop() -> Shop:
    return Shop()


async def test_a_call_that_needs_approval_suspends_the_turn(runtime: Runtime, shop: Shop) -> None:
    session, _, response = await suspended(runtime, shop)
    assert response.text == ""
    [waiting] = response.pending
    assert (waiting.id, waiting.name, waiting.arguments) == ("call_1", "refund", {"cents": 5})
    assert (waiting.agent, waiting.turn, waiting.decision) == ("ann", response.turn, None)
    assert session.pending == [waiting]
    assert shop.done == []
    assert (await kinds(session))[-5:] == [
        "message.added",
        "usage",
        "message.added",
        "approval.requested",
        "turn.suspended",
    ]
    assert await check_whole(session) == []
    assert [m.role for m in response.messages] == ["user", "assistant"]
    assert response.tool_calls[0].name == "refund"
    assert response.usage.requests == 1


async def test_approved_it_runs_once_and_the_turn_goes_on(runtime: Runtime, shop: Shop) -> None:
    session, model, first = await suspended(runtime, shop, "You have it back.", "Next.")
    approval = session.approve("call_1")
    assert (approval.decision, session.pending) == ("approved", [])
    assert shop.done == []
    assert await session.verify()
    response = await session.resume_async()
    assert (response.text, response.turn) == ("You have it back.", first.turn)
    assert shop.done == ["refund 5"]
    history = await check_whole(session)
    assert said(history) == [
        ("user", "My money!"),
        ("assistant", ""),
        ("tool", "refunded 5"),
        ("assistant", "You have it back."),
    ]
    assert response.messages == history
    assert said(model.requests[1].messages) == said(history[:3])
    assert len(await bodies(session, "usage")) == 2
    await session.run_async("Thanks")
    check_valid(model.requests[-1].messages)
    assert shop.done == ["refund 5"]


async def test_rejected_it_does_not_run_and_the_model_reads_why(
    runtime: Runtime, shop: Shop
) -> None:
    session, model, _ = await suspended(runtime, shop, "I am sorry.")
    rejected = await session.reject("call_1", "too much money")
    assert (rejected.decision, rejected.reason) == ("rejected", "too much money")
    response = await session.resume_async()
    assert response.text == "I am sorry."
    assert shop.done == []
    result = model.requests[1].messages[-1]
    assert result.role == "tool"
    assert "rejected" in result.text
    assert "too much money" in result.text
    assert (result.metadata or {})["outcome"] == "rejected"
    assert (await bodies(session, "approval.rejected"))[0]["reason"] == "too much money"
    assert "tool.called" not in await kinds(session)
    await check_whole(session)


async def test_a_decision_may_be_awaited_and_said_twice_but_not_changed(
    runtime: Runtime, shop: Shop
) -> None:
    session, _, _ = await suspended(runtime, shop, "Done.")
    with pytest.raises(InvalidInput, match=r"call_9.*call_1 \(refund\)"):
        session.approve("call_9")
    assert await session.approve("call_1") == session.approve("call_1")
    with pytest.raises(InvalidInput, match="approved already"):
        session.reject("call_1")
    assert len(await bodies(session, "approval.granted")) == 1
    await session.resume_async()
    with pytest.raises(InvalidInput, match="waiting: none"):
        session.approve("call_1")
    assert len(await bodies(session, "approval.granted")) == 1


async def test_decisions_at_the_same_moment_are_one_decision(runtime: Runtime, shop: Shop) -> None:
    session, _, _ = await suspended(runtime, shop, "Done.")

    def decide(number: int) -> str:
        try:
            made = session.approve("call_1") if number % 2 else session.reject("call_1")
        except InvalidInput as error:
            return str(error)
        return str(made.decision)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(asyncio.to_thread(decide, number)) for number in range(8)]
    [decided] = {task.result() for task in tasks} & {"approved", "rejected"}
    noted = [kind for kind in await kinds(session) if kind.startswith("approval.")]
    kind = "approval.granted" if decided == "approved" else "approval.rejected"
    assert noted == ["approval.requested", kind]
    assert await session.verify()


async def test_whom_nothing_waits_for_says_so(runtime: Runtime) -> None:
    with pytest.raises(SessionNotFound):
        runtime.session("none").approve("call_1")
    assert runtime.session("none").pending == []
    session = Agent(model=ScriptedModel("Hi."), runtime=runtime).session("s", user_id="kim")
    await session.run_async("Hi")
    assert session.pending == []
    with pytest.raises(InvalidInput, match="waiting: none"):
        session.approve("call_1")
    with pytest.raises(AccessDenied):
        runtime.session("s", user_id="lee").approve("call_1")
    with pytest.raises(AccessDenied):
        _ = runtime.session("s", user_id="lee").pending
    with pytest.raises(UsageError, match="nothing to resume"):
        await session.resume_async()


async def test_resume_before_the_decision_says_what_it_waits_for(
    runtime: Runtime, shop: Shop
) -> None:
    first = [call("refund", cents=5), call("refund", cents=7)]
    session, model, response = await suspended(runtime, shop, "Done.", first=first)
    assert [each.id for each in response.pending] == ["call_1", "call_2"]
    session.approve("call_2")
    with pytest.raises(ApprovalPending, match="call_1"):
        await session.resume_async()
    assert [each.id for each in session.pending] == ["call_1"]
    assert shop.done == []
    session.reject("call_1")
    assert (await session.resume_async()).text == "Done."
    assert shop.done == ["refund 7"]
    check_valid(model.requests[1].messages)
    await check_whole(session)


async def test_a_stream_ends_with_the_suspension(runtime: Runtime, shop: Shop) -> None:
    model = ScriptedModel(["Wait. ", call("refund", cents=5)])
    agent = Agent(model=model, tools=shop.tools(), runtime=runtime)
    stream = agent.session().stream_async("My money!")
    events = [event async for event in stream]
    assert [event.type for event in events] == [
        "turn_started",
        "text_delta",
        "message",
        "tool_call",
        "turn_suspended",
    ]
    assert events[-1].response == stream.response
    assert [each.name for each in stream.response.pending] == ["refund"]


def test_a_script_approves_and_resumes(shop: Shop) -> None:
    model = ScriptedModel(call("refund", cents=5), "Done.", call("refund", cents=7), "Done too.")
    session = Agent(model=model, tools=shop.tools()).session()
    assert session.run("My money!").pending == session.pending
    session.approve(session.pending[0].id)
    assert session.resume().text == "Done."
    stream = session.stream("And this")
    assert [event.type for event in stream][-1] == "turn_suspended"
    session.reject(stream.response.pending[0].id, "no")
    assert session.resume().text == "Done too."
    assert shop.done == ["refund 5"]


async def test_the_other_calls_of_the_answer_run_first_and_only_once(
    runtime: Runtime, shop: Shop
) -> None:
    first = [call("note", text="x"), call("refund", cents=5), call("none"), call("note", text="y")]
    session, model, response = await suspended(runtime, shop, "Done.", first=first)
    assert sorted(shop.done) == ["note x", "note y"]
    assert [each.name for each in response.pending] == ["refund"]
    assert sum(m.role == "tool" for m in response.messages) == 3
    assert await session.history() == []
    session.approve("call_2")
    await session.resume_async()
    assert sorted(shop.done) == ["note x", "note y", "refund 5"]
    await check_whole(session)
    check_valid(model.requests[1].messages)


async def test_state_of_before_the_suspension_is_there_after_it(tmp_path: Path, shop: Shop) -> None:
    address = f"sqlite:///{tmp_path / 'x.db'}"
    read: list[Any] = []

    @tool
    def recall(context: RunContext) -> str:
        """Recall what was noted."""
        read.append((context.state.get("noted"), context.state.temp.get("noted")))
        return "recalled"

    async with Runtime(address) as runtime:
        first = [call("note", text="x"), call("refund", cents=5)]
        session, _, _ = await suspended(runtime, shop, first=first)
        assert session.get_state("noted") is None
    async with Runtime(address) as runtime:
        model = ScriptedModel(call("recall"), "Done.")
        agent = Agent("ann", model, tools=[*shop.tools(), recall])
        session = agent.session("s", runtime=runtime)
        assert session.get_state("noted") is None
        await session.approve(session.pending[0].id)
        await session.resume_async()
        assert read == [("x", None)]
        assert session.get_state("noted") == "x"
        assert shop.done == ["note x", "refund 5"]
        await check_whole(session)


async def test_state_of_before_is_dropped_when_the_turn_fails_and_nothing_was_done(
    runtime: Runtime, shop: Shop
) -> None:
    @tool(read_only=True)
    def peek(context: RunContext) -> str:
        """Peek, and remember."""
        context.state["peeked"] = True
        return "peeked"

    model = ScriptedModel([call("peek"), call("refund", cents=5)])
    session = Agent(model=model, tools=[*shop.tools(), peek], runtime=runtime).session()
    response = await session.run_async("Go")
    session.reject(response.pending[0].id)
    with pytest.raises(Exception, match="script"):
        await session.resume_async()
    assert session.get_state("peeked") is None
    assert await check_whole(session) == []


async def test_a_turn_may_wait_twice(runtime: Runtime, shop: Shop) -> None:
    session, model, first = await suspended(
        runtime, shop, call("refund", cents=7), call("refund", cents=9), "Done."
    )
    session.approve("call_1")
    second = await session.resume_async()
    assert [each.arguments for each in second.pending] == [{"cents": 7}]
    assert second.turn == first.turn
    assert await session.history() == []
    session.reject("call_2")
    third = await session.resume_async()
    assert [each.arguments for each in third.pending] == [{"cents": 9}]
    session.approve("call_3")
    last = await session.resume_async()
    assert (last.text, last.turn) == ("Done.", first.turn)
    assert shop.done == ["refund 5", "refund 9"]
    assert len(set(shop.keys)) == 2
    check_valid(model.requests[-1].messages)
    await check_whole(session)
    assert len(await bodies(session, "usage")) == 4
    assert [event.type for event in await session.events(types="turn.completed")] == [
        "turn.completed"
    ]


async def test_the_same_id_in_every_round_is_decided_anew(runtime: Runtime, shop: Shop) -> None:
    again = call("refund", cents=5)
    same = type(again)("same", "refund", {"cents": 5})
    session, _, first = await suspended(runtime, shop, same, "Done.", first=same)
    session.approve(first.pending[0].id)
    second = await session.resume_async()
    assert second.pending[0].id != first.pending[0].id
    session.reject(second.pending[0].id)
    await session.resume_async()
    assert shop.done == ["refund 5"]
    await check_whole(session)


async def test_of_two_workers_that_resume_at_once_one_runs_the_tool(
    tmp_path: Path, shop: Shop
) -> None:
    address = f"sqlite:///{tmp_path / 'x.db'}"
    running, go_on = asyncio.Event(), asyncio.Event()

    @tool(requires_approval=True)
    async def pay() -> str:
        """Pay."""
        shop.done.append("paid")
        running.set()
        await go_on.wait()
        return "paid"

    def session_in(runtime: Runtime) -> Session:
        model = ScriptedModel("Done.") if shop.done else ScriptedModel(call("pay"), "Done.")
        return Agent("ann", model, tools=[pay]).session("s", runtime=runtime)

    async with Runtime(address) as here, Runtime(address) as there:
        mine, other = session_in(here), session_in(there)
        await mine.run_async("Pay")
        await other.approve(other.pending[0].id)
        first = asyncio.ensure_future(mine.resume_async())
        await running.wait()
        with pytest.raises(SessionBusy, match="another process"):
            await other.resume_async()
        go_on.set()
        assert (await first).text == "Done."
        with pytest.raises(UsageError, match="nothing to resume"):
            await other.resume_async()
        assert shop.done == ["paid"]
        await check_whole(mine)


async def test_a_decision_on_a_call_that_runs_already_is_refused_at_once(
    tmp_path: Path, shop: Shop
) -> None:
    address = f"sqlite:///{tmp_path / 'x.db'}"
    running, go_on = asyncio.Event(), asyncio.Event()

    @tool(requires_approval=True)
    async def pay() -> str:
        """Pay."""
        running.set()
        await go_on.wait()
        return "paid"

    async with Runtime(address) as here, Runtime(address) as there:
        model = ScriptedModel(call("pay"), "Done.")
        mine = Agent("ann", model, tools=[pay]).session("s", runtime=here)
        await mine.run_async("Pay")
        await mine.approve("call_1")
        first = asyncio.ensure_future(mine.resume_async())
        await running.wait()
        again = asyncio.ensure_future(asyncio.to_thread(there.session("s").approve, "call_1"))
        answered, _ = await asyncio.wait({again}, timeout=AT_ONCE / 2)
        go_on.set()
        await asyncio.wait({first, again})
        assert answered
        assert isinstance(again.exception(), InvalidInput | SessionBusy)


async def test_of_two_calls_of_one_process_that_resume_at_once_one_runs_the_tool(
    runtime: Runtime, shop: Shop
) -> None:
    session, _, _ = await suspended(runtime, shop, "Done.")
    session.approve("call_1")
    calls = [session.resume_async() for _ in range(2)]
    both = cast("list[Any]", await asyncio.gather(*calls, return_exceptions=True))
    assert {type(each) for each in both} == {Response, UsageError}
    assert shop.done == ["refund 5"]


async def test_a_session_that_is_not_kept_cannot_wait(shop: Shop) -> None:
    model = ScriptedModel([call("refund", cents=5), call("note", text="x")])
    agent = Agent(model=model, tools=shop.tools())
    with pytest.raises(UsageError, match=r"approval.*session"):
        await agent.run("My money!")
    assert "refund 5" not in shop.done


async def test_a_transfer_beside_a_call_that_waits_happens_after_the_decision(
    runtime: Runtime, shop: Shop
) -> None:
    bob = Agent("bob", ScriptedModel("Bob here."))
    first = [call("transfer_to_bob"), call("refund", cents=5)]
    ann = Agent("ann", ScriptedModel(first), tools=shop.tools(), handoffs=[bob])
    session = ann.session("s", runtime=runtime)
    await session.run_async("My money!")
    assert session.floor == "ann"
    session.approve("call_2")
    response = await session.resume_async()
    assert (response.text, response.agent, session.floor) == ("Bob here.", "bob", "bob")
    assert shop.done == ["refund 5"]
    await check_whole(session)


async def test_the_agent_that_called_goes_on_after_a_handoff(tmp_path: Path, shop: Shop) -> None:
    address = f"sqlite:///{tmp_path / 'x.db'}"

    def ann(*theirs: Any) -> Agent:
        bob = Agent("bob", ScriptedModel(*theirs), tools=shop.tools())
        return Agent("ann", ScriptedModel(call("transfer_to_bob")), handoffs=[bob])

    async with Runtime(address) as runtime:
        waiting = await ann(call("refund", cents=5)).session("s", runtime=runtime).run_async("Go")
        assert waiting.pending[0].agent == "bob"
    async with Runtime(address) as runtime:
        session = ann("Bob is done.").session("s", runtime=runtime)
        session.approve(session.pending[0].id)
        response = await session.resume_async()
        assert (response.text, response.agent) == ("Bob is done.", "bob")
        assert shop.done == ["refund 5"]
        await check_whole(session)


async def test_malformed_arguments_are_not_shown_to_a_person(runtime: Runtime, shop: Shop) -> None:
    wrong = ToolCallMade(call("refund", cents=5), malformed='{"cents')
    session, model, response = await suspended(runtime, shop, "Sorry.", first=wrong)
    assert (response.pending, response.text) == ([], "Sorry.")
    assert "no JSON" in model.requests[1].messages[-1].text
    assert shop.done == []
    await check_whole(session)


async def test_metadata_and_an_output_type_are_there_after_the_resume(
    runtime: Runtime, shop: Shop
) -> None:
    seen: list[Any] = []

    @tool(requires_approval=True)
    def who(context: RunContext) -> str:
        """Look who asks."""
        seen.append(context.metadata["who"])
        return "seen"

    model = ScriptedModel(call("who"), "7")
    agent = Agent("ann", model, tools=[who], output_type=int, runtime=runtime)
    session = agent.session()
    waiting = await session.run_async("Go", metadata={"who": "kim"})
    assert waiting.output is None
    session.approve(waiting.pending[0].id)
    assert (await session.resume_async()).output == 7
    assert seen == ["kim"]


async def test_a_repeated_request_waits_too_and_gets_the_answer_later(
    runtime: Runtime, shop: Shop
) -> None:
    model = ScriptedModel(call("refund", cents=5), "Done.")
    session = Agent("ann", model, tools=shop.tools(), runtime=runtime).session("s")
    await session.run_async("My money!", idempotency_key="k")
    with anyio.fail_after(AT_ONCE), pytest.raises(ApprovalPending):
        await session.run_async("My money!", idempotency_key="k")
    session.approve("call_1")
    first = await session.resume_async()
    again = await session.run_async("My money!", idempotency_key="k")
    assert (again.text, again.turn) == ("Done.", first.turn)
    assert shop.done == ["refund 5"]
    assert len(model.requests) == 2


async def test_a_request_of_parts_with_a_key_is_known_again_after_the_resume(
    runtime: Runtime, shop: Shop
) -> None:
    model = ScriptedModel(call("refund", cents=5), "Done.")
    agent = Agent("ann", model, tools=shop.tools(), runtime=runtime)
    session = agent.session("s")
    request = {
        "role": "user",
        "content": [{"type": "text", "text": "My money!"}],
        "metadata": {"b": 1, "a": 2.5},
        "name": "kim",
    }
    await agent.run(request, session=session, idempotency_key="k", metadata={"x": 1})
    session.approve("call_1")
    first = await session.resume_async()
    again = await agent.run(request, session=session, idempotency_key="k")
    assert (again.text, again.turn, again.usage) == (first.text, first.turn, first.usage)
    assert len(model.requests) == 2


async def test_a_router_waits_and_goes_on(runtime: Runtime, shop: Shop) -> None:
    model = ScriptedModel(call("refund", cents=5), "Done.")
    router = AgentRouter([Agent("ann", model, tools=shop.tools())], runtime=runtime)
    session = router.session("s")
    await session.run_async("My money!")
    session.approve("call_1")
    assert (await session.resume_async()).text == "Done."
    assert shop.done == ["refund 5"]


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[tuple[Runtime, Runtime]]:
    address = f"sqlite:///{tmp_path / 'x.db'}"
    async with Runtime(address) as here, Runtime(address) as there:
        yield here, there


async def test_another_worker_sees_decides_and_resumes(
    two: tuple[Runtime, Runtime], shop: Shop
) -> None:
    here, there = two
    mine, _, response = await suspended(here, shop)
    agent = Agent("ann", ScriptedModel("Done."), tools=shop.tools())
    other = agent.session("s", runtime=there)
    assert other.pending == response.pending
    await other.approve("call_1")
    assert mine.pending == []
    assert (await other.resume_async()).text == "Done."
    assert shop.done == ["refund 5"]
    assert said(await check_whole(mine))[-1] == ("assistant", "Done.")


async def test_another_worker_interrupts_it(two: tuple[Runtime, Runtime], shop: Shop) -> None:
    here, there = two
    mine, _, _ = await suspended(here, shop)
    other = Agent("ann", ScriptedModel("Other.")).session("s", runtime=there)
    with anyio.fail_after(AT_ONCE):
        assert (await other.run_async("Never mind", busy="interrupt")).text == "Other."
    with pytest.raises(UsageError, match="nothing to resume"):
        await mine.resume_async()
    assert said(await check_whole(mine))[-2:] == [("user", "Never mind"), ("assistant", "Other.")]
    assert shop.done == []
