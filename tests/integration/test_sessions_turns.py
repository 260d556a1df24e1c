"""Turns: one at a time, atomic, and honest about what they did in the world."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextvars import Context
from functools import partial
from typing import Any

import anyio
import pytest
from tests.integration.test_sessions_support import (
    Place,
    begin,
    broken,
    calls,
    paired,
    result,
    say,
    texts,
    user,
)

from tertulia import MemoryStore, Message, Runtime, Session
from tertulia.codec import encode
from tertulia.drafting import OUTCOME_UNKNOWN
from tertulia.errors import (
    InvalidInput,
    InvalidMessage,
    SessionBusy,
    SessionEnded,
    TurnInterrupted,
    TurnTimeout,
    UsageError,
)
from tertulia.messages import parse
from tertulia.stores.base import Input

pytest_plugins = ("tests.integration.test_sessions_support",)


async def test_a_turn_is_the_request_and_its_answer(session: Session) -> None:
    async with session.turn("question") as turn:
        await turn.add_message(Message.assistant("answer"))
    assert texts(await session.history()) == ["question", "answer"]
    kinds = [event.type for event in await session.events()]
    assert kinds == [
        "session.created",
        "turn.started",
        "message.added",
        "message.added",
        "turn.completed",
    ]
    numbers = {event.turn for event in (await session.events())[1:]}
    assert numbers == {2}


async def test_a_turn_takes_hold_before_anything_else_happens(session: Session) -> None:
    async with session.turn("question"):
        started = await session.events(types="turn.started")
        assert len(started) == 1


async def test_others_see_a_turn_when_it_has_ended_and_its_facts_at_once(
    runtime: Runtime,
) -> None:
    session = runtime.session("s")
    await say(session, "before")
    seen: list[list[str]] = []
    facts: list[list[str]] = []

    async def look() -> None:
        other = runtime.session("s")
        seen.append(texts(await other.history()))
        facts.append([event.type for event in await other.events()])

    async with session.turn("question") as turn:
        await turn.add_message(Message.assistant("answer"))
        await _apart(look)
    await look()
    assert seen == [["before"], ["before", "question", "answer"]]
    assert facts[0][-3:] == ["turn.started", "message.added", "message.added"]


def _apart(work: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
    """Run in a task that is no part of the calling turn."""
    return asyncio.create_task(work(), context=Context())


async def test_calls_inside_a_turn_join_it_and_see_it(session: Session) -> None:
    async with session.turn("question"):
        await session.send_message({"role": "assistant", "content": "thinking"})
        assert texts(await session.history()) == ["question", "thinking"]
        assert texts(session.messages) == ["question", "thinking"]
    assert texts(await session.history()) == ["question", "thinking"]


def _in_a_thread(session: Session) -> str:
    session.add_message({"role": "assistant", "content": "from a tool"})
    session.set_state("tool", 1)
    return session.messages[-1].text


async def test_a_synchronous_tool_in_a_thread_joins_the_turn(session: Session) -> None:
    async with session.turn("question"):
        assert await asyncio.to_thread(_in_a_thread, session) == "from a tool"
    assert texts(await session.history()) == ["question", "from a tool"]
    assert session.get_state("tool") == 1


async def test_a_turn_inside_a_turn_of_the_same_session_is_refused_not_waited_for(
    session: Session,
) -> None:
    with anyio.fail_after(5):
        async with session.turn("one"):
            with pytest.raises(UsageError, match="in a turn of the calling code already"):
                async with session.turn("two"):
                    pytest.fail("there is a turn already")
    assert texts(await session.history()) == ["one"]


async def test_a_turn_of_another_session_may_run_inside(runtime: Runtime) -> None:
    outer, inner = runtime.session("outer"), runtime.session("inner")
    async with outer.turn("a"), inner.turn("b"):
        await outer.send_message({"role": "assistant", "content": "c"})
        await inner.send_message({"role": "assistant", "content": "d"})
    assert texts(await outer.history()) == ["a", "c"]
    assert texts(await inner.history()) == ["b", "d"]


async def _clear(session: Session) -> None:
    session.clear()


_MOVES: dict[str, Callable[[Session], Coroutine[Any, Any, object]]] = {
    "prune": lambda session: session.prune("keep_last_1"),
    "clear": _clear,
    "rewind": lambda session: session.rewind(1),
    "end": lambda session: session.end(),
    "delete": lambda session: session.delete(),
}


@pytest.mark.parametrize("what", _MOVES)
async def test_what_moves_the_ground_is_refused_inside_a_turn(session: Session, what: str) -> None:
    await say(session, "before")
    async with session.turn("question"):
        with pytest.raises(SessionBusy, match="when the turn has ended"):
            await _MOVES[what](session)
    assert texts(await session.history()) == ["before", "question"]


async def test_a_turn_that_has_ended_takes_nothing_more(session: Session) -> None:
    async with session.turn("question") as turn:
        pass
    with pytest.raises(UsageError, match="has ended"):
        await turn.add_message(Message.assistant("late"))
    await turn.complete()
    assert texts(await session.history()) == ["question"]


# -- failure


async def test_a_failed_turn_leaves_the_history_as_if_it_had_not_happened(
    session: Session,
) -> None:
    await say(session, "before")
    async with broken(session, "question") as turn:
        await turn.add_message(Message.assistant("half"))
    assert texts(await session.history()) == ["before"]
    [failed] = await session.events(types="turn.failed")
    assert failed.body is not None
    assert failed.body["error"] == "Broken"
    await say(session, "after")
    assert texts(await session.history()) == ["before", "after"]


async def test_a_failed_turn_is_in_the_audit_with_all_it_did(session: Session) -> None:
    async with broken(session, "question"):
        pass
    messages = await session.events(types="message.added")
    assert [event.body and event.body["content"] for event in messages] == ["question"]


@pytest.mark.parametrize("effect", ["none", "idempotent"])
async def test_a_failed_turn_with_harmless_tools_is_hidden(session: Session, effect: Any) -> None:
    async with broken(session, "look") as turn:
        await turn.add_message(calls("x"))
        await turn.tool_called("x", "charge", effect=effect)
        await turn.tool_returned("x", result("x"))
    assert await session.history() == []


async def test_a_failed_turn_that_did_something_keeps_its_pairs_and_says_what_is_unknown(
    session: Session,
) -> None:
    async with broken(session, "pay") as turn:
        await turn.add_message(calls("x", "y"))
        await turn.tool_called("x", "charge")
        await turn.tool_returned("x", result("x", "paid"))
        await turn.tool_called("y", "charge")
    history = await session.history()
    assert paired(history)
    assert texts(history) == ["pay", "", "paid", OUTCOME_UNKNOWN]
    kinds = [event.type for event in await session.events()]
    assert kinds[-1] == "turn.interrupted"
    await say(session, "go on")
    assert texts(await session.history(limit=2))[-1] == "go on"


async def test_state_set_in_a_failed_turn_is_taken_back(session: Session) -> None:
    await session.set_state("k", "old")
    async with broken(session, "question"):
        session.set_state("k", "new")
        session.set_state("other", 1)
        session.delete_state("k")
        session.set_state("k", "newest")
        assert session.get_state("k") == "newest"
    assert session.get_state("k") == "old"
    assert session.state_keys() == ["k"]


async def test_state_set_in_a_turn_is_seen_by_others_when_it_has_ended(
    runtime: Runtime,
) -> None:
    session = runtime.session("s")
    await session.set_state("k", "old")
    seen: list[Any] = []

    async def look() -> None:
        seen.append(runtime.session("s").get_state("k"))

    async with session.turn("question"):
        session.set_state("k", "new")
        await _apart(look)
    await look()
    assert seen == ["old", "new"]


async def test_temp_state_dies_with_its_turn_and_is_never_written(session: Session) -> None:
    session.set_state("step", "next turn", scope="temp")
    async with session.turn("one"):
        assert session.get_state("step", scope="temp") == "next turn"
        session.state.temp["own"] = 1
        assert session.state_keys("temp") == ["own", "step"]
    assert session.get_state("step", scope="temp") is None
    async with session.turn("two"):
        assert session.get_state("own", scope="temp") is None
    kinds = {event.type for event in await session.events()}
    assert "state.set" not in kinds


async def test_the_outcome_of_many_failed_turns_is_hidden_and_counted_right(
    session: Session,
) -> None:
    for number in range(5):
        await say(session, f"shown {number}")
        for _ in range(3):
            async with broken(session, "hidden"):
                pass
    assert texts(await session.history()) == [f"shown {number}" for number in range(5)]


# -- stopping


async def test_a_cancelled_turn_keeps_what_it_did(session: Session) -> None:
    reached = asyncio.Event()

    async def run() -> None:
        async with session.turn("question") as turn:
            await turn.add_message(Message.assistant("so far"))
            reached.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(run())
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert texts(await session.history()) == ["question", "so far"]
    assert (await session.events())[-1].type == "turn.interrupted"
    async with session.turn("next"):
        pass
    assert texts(await session.history())[-1] == "next"


async def test_a_cancelled_turn_never_parts_a_call_from_its_result(session: Session) -> None:
    reached = asyncio.Event()

    async def run() -> None:
        async with session.turn("question") as turn:
            await turn.add_message(calls("x", "y"))
            await turn.tool_called("x", "charge", effect="none")
            reached.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(run())
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert paired(await session.history())


async def test_an_interruption_keeps_exactly_what_was_handed_out(session: Session) -> None:
    async with session.turn("tell me a story") as turn:
        await turn.interrupt("enough", partial="Once upon")
    history = await session.history()
    assert texts(history) == ["tell me a story", "Once upon"]
    assert history[-1].metadata == {"interrupted": True}


async def _stopped(session: Session) -> None:
    async with session.turn("question") as turn:
        turn.check()
        turn.request_stop("enough")
        turn.check()
        pytest.fail("it was asked to stop")


async def test_a_turn_looks_whether_it_is_asked_to_stop(session: Session) -> None:
    with pytest.raises(TurnInterrupted):
        await _stopped(session)
    [stopped] = await session.events(types="turn.interrupted")
    assert stopped.body is not None
    assert stopped.body["reason"] == "enough"


# -- two at once


async def _answered(session: Session, text: str, entered: asyncio.Event | None = None) -> None:
    async with session.turn(text) as turn:
        if entered is not None:
            entered.set()
        for _ in range(5):
            await asyncio.sleep(0)
        await turn.add_message(Message.assistant(f"answer to {text}"))


async def test_two_turns_at_once_from_two_tasks_follow_each_other(session: Session) -> None:
    async with anyio.create_task_group() as group:
        for number in range(8):
            group.start_soon(_answered, session, str(number))
    said = texts(await session.history())
    assert said[1::2] == [f"answer to {text}" for text in said[0::2]]
    assert sorted(said[0::2]) == [str(number) for number in range(8)]


def test_two_turns_at_once_from_two_threads_and_their_loops_follow_each_other(
    session: Session,
) -> None:
    problems: list[Exception] = []

    async def several(name: str) -> None:
        for number in range(5):
            await _answered(session, f"{name}{number}")

    def run(name: str) -> None:
        try:
            asyncio.run(several(name))
        except Exception as problem:
            problems.append(problem)

    threads = [threading.Thread(target=run, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    said = texts(session.messages)
    assert len(said) == 20
    assert said[1::2] == [f"answer to {text}" for text in said[0::2]]


def test_synchronous_calls_from_many_threads_lose_nothing(session: Session) -> None:
    def several(name: str) -> None:
        for number in range(10):
            session.add_message(user(f"{name}{number}"))

    threads = [threading.Thread(target=several, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    said = texts(session.messages)
    assert sorted(said) == sorted(f"{name}{number}" for name in "abcd" for number in range(10))
    for name in "abcd":
        own = [text for text in said if text.startswith(name)]
        assert own == [f"{name}{number}" for number in range(10)]


def test_one_session_is_used_by_two_loops_in_turn_and_by_synchronous_calls(
    session: Session,
) -> None:
    asyncio.run(_answered(session, "a"))
    session.add_message(user("b"))
    asyncio.run(_answered(session, "c"))
    assert texts(session.messages) == ["a", "answer to a", "b", "c", "answer to c"]


def test_a_loop_that_ended_inside_a_turn_does_not_block_the_next_one(session: Session) -> None:
    async def leave() -> None:
        reached = asyncio.Event()
        task = asyncio.create_task(hang(reached))
        await reached.wait()
        assert not task.done()

    async def hang(reached: asyncio.Event) -> None:
        async with session.turn("left"):
            reached.set()
            await asyncio.Event().wait()

    asyncio.run(leave())
    asyncio.run(_answered(session, "next"))
    assert texts(session.messages) == ["left", "next", "answer to next"]


async def test_reject_refuses_at_once(runtime: Runtime) -> None:
    session = runtime.session("s")
    impatient = runtime.session("s", busy="reject")

    async def attempt() -> None:
        with pytest.raises(SessionBusy) as refused:
            async with impatient.turn("two"):
                pytest.fail("somebody holds it")
        assert refused.value.session_id == "s"

    async with session.turn("one"):
        await _apart(attempt)
    assert texts(await session.history()) == ["one"]
    async with impatient.turn("three"):
        pass
    assert texts(await session.history()) == ["one", "three"]


async def test_interrupt_asks_the_running_turn_to_stop_and_comes_next(session: Session) -> None:
    entered = asyncio.Event()

    async def long() -> None:
        async with session.turn("one") as turn:
            entered.set()
            await turn.stop
            turn.check()

    async def urgent() -> None:
        await entered.wait()
        async with session.turn("two", busy="interrupt") as turn:
            await turn.add_message(Message.assistant("now"))

    first, second = asyncio.create_task(long()), asyncio.create_task(urgent())
    with pytest.raises(TurnInterrupted):
        await first
    await second
    assert texts(await session.history()) == ["one", "two", "now"]


async def test_a_way_of_being_busy_that_does_not_exist_is_refused(session: Session) -> None:
    wrong: Any = "wait"
    with pytest.raises(InvalidInput, match="queue, reject, interrupt"):
        async with session.turn("x", busy=wrong):
            pytest.fail("there is no such way")


async def test_a_waiter_gives_up_at_its_deadline_and_leaves_nothing(session: Session) -> None:
    async def attempt() -> None:
        with pytest.raises(TurnTimeout) as late:
            async with session.turn("two", timeout=0.01):
                pytest.fail("somebody holds it")
        assert isinstance(late.value, TimeoutError)

    async with session.turn("one"):
        await _apart(attempt)
        assert session.pending_inputs == []
    async with session.turn("three"):
        pass
    assert texts(await session.history()) == ["one", "three"]


async def test_a_waiting_input_is_durable_from_the_start_of_the_wait(session: Session) -> None:
    async with session.turn("one"):
        waiting = _apart(partial(_answered, session, "two"))
        [entry] = await _inbox(session, 1)
        assert b"two" in entry.body
    await waiting
    assert await _inbox(session, 0) == []
    assert texts(await session.history()) == ["one", "two", "answer to two"]
    [received] = await session.events(types="input.received")
    assert received.body is not None
    assert received.body["input"] == entry.id


async def _inbox(session: Session, wanted: int) -> list[Input]:
    """The inbox of a session, once it has so many entries."""
    store = session.proof._store  # pyright: ignore[reportPrivateUsage]
    row = await store.find(None, session.id)
    assert row is not None
    with anyio.fail_after(2):
        while len(entries := await store.inputs(row.key)) != wanted:
            await asyncio.sleep(0)
    return entries


async def test_a_cancelled_waiter_withdraws_its_input(session: Session) -> None:
    async with session.turn("one"):
        waiting = _apart(partial(_answered, session, "two"))
        await _queued(session)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await _inbox(session, 0) == []
    async with session.turn("three"):
        pass
    assert texts(await session.history()) == ["one", "three"]


async def _queued(session: Session) -> None:
    """Until somebody waits for the session."""
    gate = session._conversation.gate  # pyright: ignore[reportPrivateUsage]
    with anyio.fail_after(10):
        while not gate.waiting:
            await asyncio.sleep(0)


async def test_a_waiter_cancelled_while_its_input_is_written_withdraws_it(
    lasting: Place,
) -> None:
    session = lasting.open().session("s")
    async with session.turn("one") as turn:
        waiting = _apart(partial(_answered, session, "two"))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await turn.add_message(Message.assistant("answer"))
        assert session.pending_inputs == []
    async with session.turn("three"):
        pass
    assert texts(await session.history()) == ["one", "answer", "three"]


class _SlowToAnswer(MemoryStore):
    """A store that tells late that an input is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = asyncio.Event()
        self.answer = asyncio.Event()

    async def put_input(self, entry: Input) -> Input:
        made = await super().put_input(entry)
        self.written.set()
        await self.answer.wait()
        return made


async def test_an_input_that_is_being_written_is_not_taken_by_another_turn() -> None:
    store = _SlowToAnswer()
    runtime = Runtime(store)
    session = runtime.session("s")
    async with session.turn("one"):
        waiting = _apart(partial(_answered, session, "two"))
        await store.written.wait()
    async with session.turn("three"):
        assert texts(await session.history()) == ["one", "three"]
        store.answer.set()
    with anyio.fail_after(10):
        await waiting
    assert texts(await session.history()) == ["one", "three", "two", "answer to two"]
    await runtime.close()


async def test_every_message_that_waits_is_durable_from_the_start_of_the_wait(
    session: Session,
) -> None:
    async with session.turn("one"):

        async def send() -> None:
            await session.send_messages([user("two"), user("three")])

        waiting = _apart(send)
        entries = await _inbox(session, 1)
        assert b"two" in entries[0].body
        assert b"three" in entries[0].body
    await waiting
    assert texts(await session.history()) == ["one", "two", "three"]


async def test_an_input_whose_waiter_died_goes_first_into_the_next_turn(
    runtime: Runtime,
) -> None:
    session = runtime.session("s")
    await say(session, "before")
    await _leave_input(runtime, session, "left behind")
    assert texts(session.pending_inputs) == ["left behind"]
    async with session.turn("next") as turn:
        assert texts(await session.history()) == ["before", "left behind", "next"]
        await turn.add_message(Message.assistant("both"))
    assert session.pending_inputs == []
    assert texts(await session.history()) == ["before", "left behind", "next", "both"]


async def _leave_input(runtime: Runtime, session: Session, text: str) -> None:
    row = await runtime.store.find(None, session.id)
    assert row is not None
    entry = Input(
        session=row.key, worker=b"\0" * 16, kind="input", time=0, body=encode([parse(user(text))])
    )
    await runtime.store.put_input(entry)


async def test_a_failed_turn_does_not_lose_the_input_that_was_left_behind(
    runtime: Runtime,
) -> None:
    session = runtime.session("s")
    await say(session, "before")
    await _leave_input(runtime, session, "left behind")
    async with broken(session, "fails"):
        pass
    async with session.turn("next"):
        pass
    assert "left behind" in texts(await session.history())


async def test_an_input_that_cannot_be_stored_is_refused_and_blocks_nobody(
    session: Session,
) -> None:
    await say(session, "before")
    with pytest.raises(InvalidInput, match="at most"):
        async with session.turn("x" * 1_000_001):
            pytest.fail("it is too large")
    with pytest.raises(InvalidMessage):
        async with session.turn("fine") as turn:
            await turn.add_message(result("nobody"))
    assert texts(await session.history()) == ["before"]
    async with session.turn("after"):
        pass
    assert texts(await session.history()) == ["before", "after"]


async def test_a_turn_on_an_ended_session_is_refused_and_blocks_nobody(session: Session) -> None:
    await say(session, "a")
    await session.end()
    with pytest.raises(SessionEnded):
        async with session.turn("b"):
            pytest.fail("it has ended")
    await session.reopen()
    async with session.turn("c"):
        pass
    assert texts(await session.history()) == ["a", "c"]


async def test_a_synchronous_call_that_would_block_its_own_loop_raises_instead(
    session: Session,
) -> None:
    await say(session, "before")

    async def blocked() -> None:
        with pytest.raises(SessionBusy, match="await the asynchronous method"):
            session.add_message(user("never"))
        with pytest.raises(SessionBusy, match="await the asynchronous method"):
            session.clear()

    async with session.turn("one"):
        await _apart(blocked)
    assert session.pending_inputs == []
    assert texts(await session.history()) == ["before", "one"]


# -- what a dead process left


async def test_a_turn_left_by_a_dead_process_is_closed_by_the_next_write(lasting: Place) -> None:
    first = lasting.open()
    session = first.session("s")
    await say(session, "before")
    turn = await begin(session, "left")
    await turn.add_message(Message.assistant("half"))
    lasting.kill(first)
    second = lasting.open().session("s")
    assert texts(await second.history()) == ["before"]
    assert [event.type for event in await second.events()][-1] == "message.added"
    async with second.turn("next"):
        pass
    assert texts(await second.history()) == ["before", "next"]
    assert len(await second.events(types="turn.abandoned")) == 1


async def _abandon(lasting: Place, *, harmful: bool) -> Session:
    """A session in which a dead process left a turn of three messages behind three others."""
    first = lasting.open()
    session = first.session("s")
    await say(session, "a", "b", "c")
    turn = await begin(session, "left")
    await turn.add_message(calls("x"))
    await turn.tool_called("x", "charge", effect="unknown" if harmful else "none")
    if harmful:
        await turn.tool_returned("x", result("x", "paid"))
    lasting.kill(first)
    return lasting.open().session("s")


async def test_an_abandoned_turn_that_did_something_is_kept_with_its_pairs(
    lasting: Place,
) -> None:
    session = await _abandon(lasting, harmful=True)
    await say(session, "next")
    history = await session.history()
    assert paired(history)
    assert texts(history) == ["a", "b", "c", "left", "", "paid", "next"]


@pytest.mark.parametrize("harmful", [True, False])
@pytest.mark.parametrize(
    "what", ["keep_last", "keep_important", "summarize", "clear", "rewind", "end", "fork", "state"]
)
async def test_whatever_comes_first_after_a_crash_leaves_a_session_that_verifies(
    lasting: Place, what: str, harmful: bool
) -> None:
    session = await _abandon(lasting, harmful=harmful)
    match what:
        case "keep_last":
            await session.prune("keep_last_2")
        case "keep_important":
            await session.prune("keep_important", n=1, judge=lambda m: m.text == "a")
        case "summarize":
            await session.prune("summarize_old", threshold=2, summarize=lambda _: "sum")
        case "clear":
            session.clear()
        case "rewind":
            await session.rewind(3)
        case "end":
            await session.end()
        case "fork":
            assert texts(await session.fork("f").history()) == ["a", "b", "c"]
        case _:
            await session.set_state("k", 1)
    history = await session.history()
    assert paired(history)
    if not harmful:
        assert "left" not in texts(history)
    assert await session.verify()


@pytest.mark.parametrize("harmful", [True, False])
async def test_max_messages_holds_over_a_crash(lasting: Place, harmful: bool) -> None:
    first = lasting.open()
    policy = {"max_messages": 4, "auto_prune": True}
    session = first.session("s", retention=policy)
    await say(session, "a", "b", "c")
    turn = await begin(session, "left")
    await turn.add_message(calls("x"))
    await turn.tool_called("x", "charge", effect="unknown" if harmful else "none")
    lasting.kill(first)
    again = lasting.open().session("s")
    await say(again, "d", "e")
    history = await again.history()
    assert len(history) <= 4
    assert paired(history)
    assert texts(history)[-2:] == ["d", "e"]
