"""Messages that a tool writes into its own session come after the results of the running calls."""

from __future__ import annotations

import asyncio

import pytest

from tertulia import Agent, Message, RunContext, Runtime, tool
from tertulia.testing import ScriptedModel, call


@tool(read_only=True)
def other() -> str:
    """Do something else."""
    return "B RESULT"


@tool
async def note(context: RunContext) -> str:
    """Report progress into the conversation."""
    sent = await context.session.send_message({"role": "assistant", "content": "half done"})
    assert sent.text == "half done"
    return "A RESULT"


def said(messages: list[Message]) -> list[tuple[str, str]]:
    return [(message.role, message.text) for message in messages]


async def test_neither_the_tool_nor_its_siblings_lose_their_results(runtime: Runtime) -> None:
    model = ScriptedModel([call("other"), call("note")], "Done.")
    session = Agent(model=model, tools=[note, other], runtime=runtime).session()
    response = await session.run_async("Go")
    results = sorted(message.text for message in response.messages if message.role == "tool")
    assert results == ["A RESULT", "B RESULT"]
    assert said(response.messages)[-2:] == [("assistant", "half done"), ("assistant", "Done.")]
    assert said(await session.history()) == said(response.messages)
    assert len(await session.events(types="message.staged")) == 1
    assert await session.verify()


async def test_what_was_staged_is_kept_when_the_turn_is_stopped(runtime: Runtime) -> None:
    written, never = asyncio.Event(), asyncio.Event()

    @tool
    async def slow(context: RunContext) -> str:
        """Write, and then take for ever."""
        await context.session.send_message({"role": "assistant", "content": "half done"})
        written.set()
        await never.wait()
        return "never"

    model = ScriptedModel(call("slow"), "Still here.")
    session = Agent(model=model, tools=[slow], runtime=runtime).session()
    turn = asyncio.ensure_future(session.run_async("Go"))
    await written.wait()
    turn.cancel()
    with pytest.raises(asyncio.CancelledError):
        await turn
    roles = [message.role for message in await session.history()]
    assert roles == ["user", "assistant", "tool", "assistant"]
    assert (await session.history())[-1].text == "half done"
    assert await session.verify()


async def test_what_was_staged_before_a_suspension_is_there_after_it(runtime: Runtime) -> None:
    @tool(requires_approval=True)
    def pay() -> str:
        """Pay."""
        return "paid"

    model = ScriptedModel([call("note"), call("pay")])
    session = Agent("a", model=model, tools=[note, pay], runtime=runtime).session("s")
    response = await session.run_async("Go")
    session.approve(response.pending[0].id)
    again = Agent("a", model=ScriptedModel("Done."), tools=[note, pay], runtime=runtime)
    answer = await again.session("s").resume_async()
    assert said(answer.messages)[2:] == [
        ("tool", "A RESULT"),
        ("tool", "paid"),
        ("assistant", "half done"),
        ("assistant", "Done."),
    ]
    assert await session.verify()


async def test_a_stream_that_is_held_ends_when_its_task_runs_another_turn(
    runtime: Runtime,
) -> None:
    model = ScriptedModel("one two three", "Second.")
    session = Agent(model=model, runtime=runtime).session()
    stream = session.stream_async("First")
    async for event in stream:
        if event.type == "text_delta":
            break
    assert (await session.run_async("Next", timeout=10)).text == "Second."
    assert said(await session.history()) == [
        ("user", "First"),
        ("assistant", "one "),
        ("user", "Next"),
        ("assistant", "Second."),
    ]


async def test_a_read_after_a_stream_that_was_left_sees_what_was_kept(runtime: Runtime) -> None:
    session = Agent(model=ScriptedModel("one two three"), runtime=runtime).session()
    async for event in session.stream_async("First"):
        if event.type == "text_delta":
            break
    assert said(await session.history()) == [("user", "First"), ("assistant", "one ")]


def test_a_read_after_a_synchronous_stream_that_was_left_sees_what_was_kept() -> None:
    session = Agent(model=ScriptedModel("one two three")).session()
    for event in session.stream("First"):
        if event.type == "text_delta":
            break
    assert said(session.messages) == [("user", "First"), ("assistant", "one ")]
