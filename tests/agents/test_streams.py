"""Streams of events, synchronous calls, and what becomes of those that are broken off."""

from __future__ import annotations

import asyncio
import gc
import threading
import warnings
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tertulia import Agent, Runtime, Session, ToolCall, tool
from tertulia.agents import AsyncStream, Response, StreamEvent, streaming
from tertulia.agents.protocol import ModelEvent, ModelRequest, TextDelta
from tertulia.errors import ModelError, SessionBusy, TurnInterrupted, UsageError
from tertulia.testing.models import ScriptedModel

ANSWER = "one two three four five"


@tool(read_only=True)
def look(place: str) -> str:
    """Look somewhere."""
    return f"nothing in {place}"


async def drain(stream: AsyncStream, into: list[StreamEvent]) -> None:
    """Take the rest of a stream, also what comes before it raises."""
    async for event in stream:
        into.append(event)  # noqa: PERF401


def texts(session: Session) -> list[str]:
    return [message.text for message in session.messages]


async def test_a_stream_tells_everything_in_order(runtime: Runtime) -> None:
    model = ScriptedModel(["Wait. ", ToolCall("c", "look", {"place": "x"})], "All done.")
    session = Agent(model=model, tools=[look], runtime=runtime).session()
    stream = session.stream_async("Look")
    events = [event async for event in stream]
    assert [event.type for event in events] == [
        "turn_started",
        "text_delta",
        "message",
        "tool_call",
        "tool_result",
        "text_delta",
        "text_delta",
        "message",
        "usage",
        "turn_completed",
    ]
    assert events[3].call == ToolCall("c", "look", {"place": "x"})
    assert events[4].message is not None
    assert events[4].message.text == "nothing in x"
    assert stream.response.text == "All done."
    assert events[-1].response == stream.response


async def test_a_stream_may_be_awaited_first(runtime: Runtime) -> None:
    session = Agent(model=ScriptedModel(ANSWER), runtime=runtime).session()
    got = [event.text async for event in await session.stream_async("Count")]
    assert "".join(got) == ANSWER


async def test_a_stream_that_fails_yields_the_error_then_raises(runtime: Runtime) -> None:
    model = ScriptedModel(["Half an", ModelError("it broke")])
    session = Agent(model=model, runtime=runtime).session()
    events: list[StreamEvent] = []
    with pytest.raises(ModelError, match="it broke"):
        await drain(session.stream_async("Hi"), events)
    assert events[-1].type == "error"
    assert isinstance(events[-1].error, ModelError)
    assert await session.history() == []


async def take(session: Session, words: int) -> str:
    """Take so many words of an answer, then break off."""
    got = ""
    async for event in session.stream_async("Count"):
        got += event.text
        words -= event.type == "text_delta"
        if not words:
            break
    return got


async def test_an_abandoned_stream_keeps_exactly_what_was_got(runtime: Runtime) -> None:
    model = ScriptedModel(ANSWER, "Go on.")
    session = Agent(model=model, runtime=runtime).session()
    got = await take(session, 2)
    assert (await session.run_async("Go on")).text == "Go on."
    history = await session.history()
    assert [m.text for m in history] == ["Count", got, "Go on", "Go on."]
    assert got == "one two "
    assert history[1].metadata == {"interrupted": True}


async def test_a_stream_that_is_held_ends_at_the_next_call_of_its_consumer(
    runtime: Runtime,
) -> None:
    session = Agent(model=ScriptedModel(ANSWER, "ok"), runtime=runtime).session(busy="reject")
    stream = session.stream_async("Count")
    async for event in stream:
        if event.text:
            break
    await session.send_message({"role": "user", "content": "Stop"})
    assert [m.text for m in await session.history()] == ["Count", "one ", "Stop"]
    assert (await session.run_async("Hi")).text == "ok"


async def test_another_task_does_not_break_a_stream_off(runtime: Runtime) -> None:
    session = Agent(model=ScriptedModel(ANSWER), runtime=runtime).session()
    stream = session.stream_async("Count")
    first = await anext(aiter(stream))
    assert first.type == "turn_started"
    other = asyncio.ensure_future(session.send_message({"role": "user", "content": "Later"}))
    for _ in range(10):
        await asyncio.sleep(0)
    assert "".join([event.text async for event in stream]) == ANSWER
    await other
    assert [m.text for m in await session.history()] == ["Count", ANSWER, "Later"]


async def test_a_stream_that_is_collected_ends_its_turn(runtime: Runtime) -> None:
    session = Agent(model=ScriptedModel(ANSWER), runtime=runtime).session()
    stream = session.stream_async("Count")
    await anext(aiter(stream))
    del stream
    gc.collect()
    await session.send_message({"role": "user", "content": "Next"})
    assert [m.text for m in await session.history()] == ["Count", "Next"]


async def test_leaving_the_block_of_a_stream_closes_its_turn(runtime: Runtime) -> None:
    session = Agent(model=ScriptedModel(ANSWER), runtime=runtime).session()
    async with session.stream_async("Count") as stream:
        async for event in stream:
            if event.text == "three ":
                break
    assert [m.text for m in await session.history()] == ["Count", "one two three "]
    assert [event async for event in stream] == []


async def test_cancelling_the_consumer_closes_the_turn_before_it_is_gone(
    runtime: Runtime,
) -> None:
    got = asyncio.Event()

    async def stuck(request: ModelRequest) -> AsyncIterator[ModelEvent]:
        yield TextDelta("half ")
        await asyncio.Event().wait()

    session = Agent(model=ScriptedModel(stuck), runtime=runtime).session()

    async def consume() -> None:
        async for event in session.stream_async("Count"):
            if event.text:
                got.set()

    task = asyncio.ensure_future(consume())
    await got.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [m.text for m in await session.history()] == ["Count", "half "]


async def test_a_stream_that_somebody_else_interrupts_says_so(runtime: Runtime) -> None:
    session = Agent(model=ScriptedModel(ANSWER, "ok"), runtime=runtime).session()
    stream = session.stream_async("Count")
    async for event in stream:
        if event.text == "two ":
            break
    other = asyncio.ensure_future(session.run_async("Now", busy="interrupt"))
    await other
    rest: list[StreamEvent] = []
    with pytest.raises(TurnInterrupted):
        await drain(stream, rest)
    assert [event.type for event in rest] == ["error"]
    assert [m.text for m in await session.history()] == ["Count", "one two ", "Now", "ok"]


async def test_a_slow_consumer_holds_the_model_back(runtime: Runtime) -> None:
    made: list[int] = []

    async def endless(request: ModelRequest) -> AsyncIterator[ModelEvent]:
        for number in range(10_000):
            made.append(number)
            yield TextDelta("x ")

    session = Agent(model=ScriptedModel(endless), runtime=runtime).session()
    async with session.stream_async("Go") as stream:
        await anext(aiter(stream))
        for _ in range(300):
            await asyncio.sleep(0)
        assert len(made) < 100


def test_run_and_stream_work_in_a_script() -> None:
    session = Agent(model=ScriptedModel("Hello.", ANSWER)).session()
    assert session.run("Hi").text == "Hello."
    stream = session.stream("Count")
    assert "".join(event.text for event in stream) == ANSWER
    assert stream.response.turn > 0
    assert texts(session) == ["Hi", "Hello.", "Count", ANSWER]


def test_a_stream_broken_off_in_a_script_never_blocks() -> None:
    session = Agent(model=ScriptedModel(ANSWER, ANSWER, ANSWER, "Done.")).session()
    for event in session.stream("One"):
        if event.text:
            break
    held = session.stream("Two")
    for event in held:
        if event.text == "two ":
            break
    session.set_state("k", 1)
    with session.stream("Three") as stream:
        next(stream)
    assert session.run("Four").text == "Done."
    assert texts(session) == ["One", "one ", "Two", "one two ", "Three", "Four", "Done."]


def test_an_error_in_a_script_is_raised_there() -> None:
    session = Agent(model=ScriptedModel(ModelError("it broke"), "ok")).session()
    with pytest.raises(ModelError, match="it broke"):
        session.run("Hi")
    assert session.run("Again").text == "ok"
    assert texts(session) == ["Again", "ok"]


async def test_synchronous_calls_work_on_a_running_loop_and_warn_once(runtime: Runtime) -> None:
    streaming._warned.clear()  # pyright: ignore[reportPrivateUsage]
    session = Agent(model=ScriptedModel("a", "b", "c"), runtime=runtime).session()
    with pytest.warns(RuntimeWarning, match="run_async") as caught:
        assert session.run("one").text == "a"
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert session.run("two").text == "b"
    with pytest.warns(RuntimeWarning, match="stream_async") as caught:
        assert "".join(event.text for event in session.stream("three")) == "c"
    assert caught[0].filename == __file__


async def test_a_synchronous_call_never_waits_for_the_loop_that_it_blocks(
    runtime: Runtime,
) -> None:
    session = Agent(model=ScriptedModel(ANSWER, "x"), runtime=runtime).session()
    running = asyncio.Event()

    async def hold() -> None:
        async with session.turn("held"):
            running.set()
            await asyncio.Event().wait()

    task = asyncio.ensure_future(hold())
    await running.wait()
    streaming._warned.add("run_async")  # pyright: ignore[reportPrivateUsage]
    with pytest.raises(SessionBusy, match="await the asynchronous"):
        session.run("Hi")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_many_threads_share_one_session_without_interleaving() -> None:
    model = ScriptedModel(*["ok then"] * 40)
    session = Agent(model=model).session()

    def ask(number: int) -> str:
        return session.run(f"q{number}").text

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(40)))
    assert answers == ["ok then"] * 40
    roles = [message.role for message in session.messages]
    assert roles == ["user", "assistant"] * 40


def test_one_session_in_two_loops_a_thread_and_a_script() -> None:
    session = Agent(model=ScriptedModel(*"abcd")).session()

    async def ask(text: str) -> Response:
        return await session.run_async(text)

    assert asyncio.run(ask("1")).text == "a"
    assert asyncio.run(ask("2")).text == "b"
    assert session.run("3").text == "c"
    thread = threading.Thread(target=session.run, args=("4",))
    thread.start()
    thread.join()
    assert len(session.messages) == 8


async def test_the_wrong_way_to_use_a_call_names_the_right_one(runtime: Runtime) -> None:
    session = Agent(model=ScriptedModel("a"), runtime=runtime).session()
    with pytest.raises(UsageError, match="stream_async"):
        async for _ in session.stream("x"):
            pass
    with pytest.raises(UsageError, match="async for"):
        list(session.stream_async("x"))
    streaming._warned.add("run_async")  # pyright: ignore[reportPrivateUsage]
    with pytest.raises(UsageError, match="run_async"):
        await session.run("x")
    with pytest.raises(UsageError, match="has not ended"):
        _ = session.stream_async("x").response


async def test_a_synchronous_call_in_an_asynchronous_tool_is_refused(runtime: Runtime) -> None:
    inner = Agent(model=ScriptedModel("inner"))

    @tool
    async def delegate() -> str:
        """Ask another agent the wrong way."""
        return inner.run_sync("Hi").text

    @tool
    def delegate_in_thread() -> str:
        """Ask another agent from a thread."""
        return inner.run_sync("Hi").text

    model = ScriptedModel([ToolCall("a", "delegate"), ToolCall("b", "delegate_in_thread")], "Done.")
    agent = Agent(model=model, tools=[delegate, delegate_in_thread], runtime=runtime)

    def script() -> Response:
        return agent.session().run("Go")

    response = await asyncio.to_thread(script)
    results = {m.tool_call_id: m.text for m in response.messages if m.role == "tool"}
    assert "would wait for itself" in results["a"]
    assert results["b"] == "inner"


async def test_nothing_is_left_running_after_many_streams_were_broken_off(
    runtime: Runtime,
) -> None:
    model = ScriptedModel(*[ANSWER] * 50)
    session = Agent(model=model, runtime=runtime).session()
    for _ in range(50):
        await take(session, 1)
    await session.send_message({"role": "user", "content": "end"})
    for _ in range(5):
        await asyncio.sleep(0)
    others = asyncio.all_tasks() - {asyncio.current_task()}
    assert [task for task in others if "streaming" in repr(task)] == []
