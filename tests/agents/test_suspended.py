"""What else may happen to a session whose turn waits for an approval."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from tests.agents.histories import check_valid, check_whole, kinds, said
from tests.agents.shop import Shop, suspended

from tertulia import Agent, Runtime, Session, SQLiteStore, tool
from tertulia.audit.files import verify_lines
from tertulia.errors import (
    ApprovalPending,
    InvalidInput,
    ModelError,
    SessionEnded,
    SessionNotFound,
    UsageError,
)
from tertulia.testing.clocks import FrozenClock
from tertulia.testing.models import ScriptedModel, call

AT_ONCE = 5.0


@pytest.fixture
def shop() -> Shop:
    return Shop()


Attempt = Callable[[Session], Awaitable[Any]]


async def _stream(session: Session) -> None:
    async for _ in session.stream_async("More"):
        pass


async def _clear(session: Session) -> None:
    await asyncio.to_thread(session.clear)


async def _turn(session: Session) -> None:
    async with session.turn("by hand"):
        pass


WRITES: dict[str, Attempt] = {
    "run": lambda session: session.run_async("More"),
    "run with a key": lambda session: session.run_async("More", idempotency_key="k"),
    "reject": lambda session: session.run_async("More", busy="reject"),
    "stream": _stream,
    "json": lambda session: session.json_async("More", schema=int),
    "send_message": lambda session: session.send_message({"role": "user", "content": "More"}),
    "prune": lambda session: session.prune("keep_last_1"),
    "update_state": lambda session: session.update_state("k", lambda _: 1),
    "clear": _clear,
    "rewind": lambda session: session.rewind(1),
    "turn": _turn,
}


@pytest.mark.parametrize("what", WRITES)
async def test_nothing_else_is_written_while_a_turn_waits_and_nobody_hangs(
    runtime: Runtime, shop: Shop, what: str
) -> None:
    session, model, _ = await suspended(runtime, shop, "Done.")
    head = len(await session.events())
    with anyio.fail_after(AT_ONCE), pytest.raises(ApprovalPending, match=r"approve.*resume"):
        await WRITES[what](session)
    assert len(await kinds(runtime.session("s"))) == head
    assert len(model.requests) == 1
    assert session.pending_inputs == []
    session.approve("call_1")
    with anyio.fail_after(AT_ONCE):
        assert (await session.resume_async()).text == "Done."
    assert [m.text for m in await check_whole(session) if m.role == "user"] == ["My money!"]
    assert shop.done == ["refund 5"]
    assert session.get_state("k") is None


async def test_state_cannot_be_set_and_whoever_awaits_it_is_told(
    runtime: Runtime, shop: Shop
) -> None:
    session, _, response = await suspended(runtime, shop)
    with anyio.fail_after(AT_ONCE), pytest.raises(ApprovalPending, match=r"approve.*resume"):
        await session.set_state("k", 1)
    assert await session.unlock() == response.turn


async def test_a_state_that_was_refused_is_not_set_later(runtime: Runtime, shop: Shop) -> None:
    session, _, _ = await suspended(runtime, shop, "Done.")
    with pytest.raises(ApprovalPending):
        await asyncio.to_thread(session.set_state, "k", 1)
    session.approve("call_1")
    await session.resume_async()
    await session.flush()
    assert session.get_state("k") is None


async def test_a_state_that_was_refused_does_not_forbid_reading(
    runtime: Runtime, shop: Shop
) -> None:
    session, _, _ = await suspended(runtime, shop)
    with pytest.raises(ApprovalPending):
        await session.set_state("k", 1)
    try:
        assert await session.history() == []
        assert (await session.events())[-1].type == "turn.suspended"
        assert await session.verify()
    finally:
        await session.unlock()


async def test_a_state_that_was_refused_does_not_forbid_to_close(
    tmp_path: Path, shop: Shop
) -> None:
    runtime = Runtime(f"sqlite:///{tmp_path / 'x.db'}")
    session, _, _ = await suspended(runtime, shop)
    with pytest.raises(ApprovalPending):
        await session.set_state("k", 1)
    try:
        await session.close()
    finally:
        await session.unlock()
        await runtime.close()


async def test_busy_interrupt_closes_the_suspended_turn(runtime: Runtime, shop: Shop) -> None:
    first = [call("refund", cents=5), call("note", text="x")]
    session, model, _ = await suspended(runtime, shop, "What else?", first=first)
    response = await session.run_async("Never mind", busy="interrupt")
    assert response.text == "What else?"
    history = await check_whole(session)
    check_valid(model.requests[1].messages)
    results = {m.tool_call_id: m for m in history if m.role == "tool"}
    assert "did not run" in results["call_1"].text
    assert "noted x" in results["call_2"].text
    assert shop.done == ["note x"]
    assert "turn.interrupted" in await kinds(session)
    assert session.pending == []
    with pytest.raises(InvalidInput):
        session.approve("call_1")
    with pytest.raises(UsageError, match="nothing to resume"):
        await session.resume_async()


async def test_an_approved_call_that_is_interrupted_has_not_run(
    runtime: Runtime, shop: Shop
) -> None:
    session, _, _ = await suspended(runtime, shop, "Fine.")
    session.approve("call_1")
    await session.run_async("Never mind", busy="interrupt")
    results = [m for m in await check_whole(session) if m.role == "tool"]
    assert "did not run" in results[0].text
    assert shop.done == []


async def test_ending_closes_it(runtime: Runtime, shop: Shop) -> None:
    session, _, _ = await suspended(runtime, shop, "Done.")
    await session.end("bye")
    assert session.pending == []
    with pytest.raises(SessionEnded):
        await session.resume_async()
    await check_whole(session)
    await session.reopen()
    assert (await session.run_async("Back")).text == "Done."
    await check_whole(session)
    assert shop.done == []


async def test_deleting_and_erasing_work_while_it_waits(runtime: Runtime, shop: Shop) -> None:
    session, _, _ = await suspended(runtime, shop)
    await session.delete()
    with pytest.raises(SessionNotFound):
        session.approve("call_1")
    other, _, _ = await suspended(runtime, shop, user_id="kim")
    assert (await runtime.erase_user("kim")).sessions == 1
    with pytest.raises(SessionNotFound):
        await other.resume_async()


async def test_a_hold_is_set_while_it_waits_and_the_turn_goes_on(
    runtime: Runtime, shop: Shop
) -> None:
    session, _, _ = await suspended(runtime, shop, "Done.")
    await session.hold("case 7")
    assert [each.id for each in session.pending] == ["call_1"]
    assert await session.verify()
    session.approve("call_1")
    await session.release_hold()
    assert (await session.resume_async()).text == "Done."
    await check_whole(session)


async def test_unlocking_closes_it(runtime: Runtime, shop: Shop) -> None:
    session, _, response = await suspended(runtime, shop, "Done.")
    assert await session.unlock() == response.turn
    assert session.pending == []
    assert (await session.run_async("Again")).text == "Done."
    await check_whole(session)
    assert shop.done == []


async def test_a_fork_has_what_was_before_and_waits_for_nothing(
    runtime: Runtime, shop: Shop
) -> None:
    model = ScriptedModel("Hi.", call("refund", cents=5), "In the fork.", "Done.")
    session = Agent("ann", model, tools=shop.tools(), runtime=runtime).session("s")
    await session.run_async("Hello")
    await session.run_async("My money!")
    fork = session.fork("f")
    assert fork.pending == []
    assert (await fork.run_async("Other")).text == "In the fork."
    assert [text for _, text in said(await check_whole(fork))] == [
        "Hello",
        "Hi.",
        "Other",
        "In the fork.",
    ]
    session.approve("call_1")
    assert (await session.resume_async()).text == "Done."
    await check_whole(session)
    await check_whole(fork)


async def test_a_fork_does_not_know_of_a_handoff_in_the_turn_that_waits(
    runtime: Runtime, shop: Shop
) -> None:
    bob = Agent("bob", ScriptedModel(call("refund", cents=5)), tools=shop.tools())
    mine = ScriptedModel("Hi.", call("transfer_to_bob"))
    session = Agent("ann", mine, handoffs=[bob], runtime=runtime).session("s")
    await session.run_async("Hello")
    await session.run_async("My money!")
    assert (session.floor, session.fork("f").floor) == ("bob", "ann")


async def test_its_export_and_its_copy_are_whole_while_it_waits(
    runtime: Runtime, shop: Shop
) -> None:
    session, _, _ = await suspended(runtime, shop, "Done.")
    assert verify_lines(await session.export())
    data = msgspec.json.decode(msgspec.json.encode(session.to_dict()))
    assert data["messages"] == []
    session.approve("call_1")
    await session.resume_async()
    assert verify_lines(await session.export())


async def test_a_reason_is_text(runtime: Runtime, shop: Shop) -> None:
    session, _, _ = await suspended(runtime, shop)
    with pytest.raises(InvalidInput, match="reason"):
        session.reject("call_1", 7)  # pyright: ignore[reportArgumentType]
    assert [each.id for each in session.pending] == ["call_1"]


async def test_a_sweep_leaves_it_and_sweeps_the_others(runtime: Runtime, shop: Shop) -> None:
    session, _, _ = await suspended(
        runtime, shop, "Done.", retention={"max_messages": 1, "auto_prune": True}
    )
    other = runtime.session("other", retention={"max_messages": 1, "auto_prune": True})
    await other.send_message({"role": "user", "content": "x"})
    await runtime.sweep()
    assert [each.id for each in session.pending] == ["call_1"]
    assert await session.verify()
    session.approve("call_1")
    assert (await session.resume_async()).text == "Done."
    await check_whole(session)


@pytest.mark.parametrize("end", ["Done.", ModelError("out of order")], ids=["done", "failed"])
async def test_a_state_that_is_queued_while_it_waits_is_refused_or_kept(
    runtime: Runtime, end: Any
) -> None:
    @tool(requires_approval=True, read_only=True)
    def look() -> str:
        """Look: a turn that fails with no more than this is hidden."""
        return "seen"

    def session(model: ScriptedModel, name: str) -> Session:
        return Agent("ann", model, tools=[look], runtime=runtime).session(name)

    async def finish(session: Session) -> None:
        with contextlib.suppress(ModelError):
            await session.resume_async()

    kept = session(ScriptedModel(call("look"), end), "kept")
    await kept.run_async("Go")
    queued = kept.set_state("color", "blue")
    await kept.approve("call_1")
    await finish(kept)
    await queued
    assert kept.get_state("color") == "blue"
    await kept.flush()
    assert runtime.session("kept").get_state("color") == "blue"

    refused = session(ScriptedModel(call("look"), end), "refused")
    await refused.run_async("Go")
    queued = refused.set_state("color", "blue")
    await refused.approve("call_1")
    assert not queued.done
    with pytest.raises(ApprovalPending):
        await queued
    await finish(refused)
    await refused.flush()
    assert refused.get_state("color") is None
    assert await kept.verify()
    assert await refused.verify()


@pytest.mark.parametrize("first", [True, False], ids=["first turn", "later turn"])
@pytest.mark.parametrize("policy", [{"idle_days": 1}, {"ttl_days": 1}], ids=str)
async def test_a_session_that_waits_too_long_is_swept(
    shop: Shop, tmp_path: Path, policy: dict[str, int], first: bool
) -> None:
    clock = FrozenClock()
    async with Runtime(SQLiteStore(tmp_path / "x.db"), clock=clock) as runtime:
        model = ScriptedModel(*([] if first else ["Hi."]), call("refund", cents=5))
        agent = Agent("ann", model, tools=shop.tools(), runtime=runtime)
        session = agent.session("s", retention={**policy, "auto_prune": True})
        if not first:
            await session.run_async("Hello")
        await session.run_async("My money!")
        clock.advance(hours=23)
        assert await runtime.sweep() == []
        clock.advance(days=1)
        done = "end" if "idle_days" in policy else "delete"
        foreseen = await runtime.sweep(dry_run=True)
        assert [(each.session_id, each.action) for each in foreseen] == [("s", done)]
        assert session.pending != []
        swept = await runtime.sweep()
        assert [(each.action, each.done, each.error) for each in swept] == [(done, True, None)]
        with pytest.raises(SessionEnded if done == "end" else SessionNotFound):
            await session.resume_async()
        assert shop.done == []
