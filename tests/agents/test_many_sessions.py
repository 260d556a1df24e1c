"""Many sessions at once: nothing is lost, nothing gets into another conversation."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.agents.histories import check_whole

from tertulia import Agent, Message, RunContext, Runtime, Session, ToolCall, tool
from tertulia.agents.protocol import (
    Finished,
    ModelEvent,
    ModelRequest,
    TextDelta,
    ToolCallMade,
    UsageReport,
)

SIZES = [
    pytest.param(1, 25, 8, id="25 sessions"),
    pytest.param(2, 25, 8, id="25 sessions of two workers"),
    pytest.param(1, 200, 20, marks=[pytest.mark.soak, pytest.mark.timeout(900)], id="200 sessions"),
    pytest.param(
        2,
        200,
        20,
        marks=[pytest.mark.soak, pytest.mark.timeout(900)],
        id="200 sessions of two workers",
    ),
]
AT_ONCE = 4
"""Calls on one session that are under way at the same time."""


class Parrot:
    """Repeats the question; every third one it looks at first, always under the same id."""

    name = "parrot"

    def __init__(self) -> None:
        self.luck = random.Random(7)

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        check_one_conversation(request.messages)
        for _ in range(self.luck.randrange(4)):
            await asyncio.sleep(0)
        last = request.messages[-1]
        if last.role == "user" and int(last.text.split()[1]) % 3 == 0:
            yield TextDelta("One moment. ")
            yield ToolCallMade(ToolCall("same", "note", {"text": last.text}))
            yield Finished("tool_calls")
            return
        question = next(m.text for m in reversed(request.messages) if m.role == "user")
        yield TextDelta("answer to ")
        await asyncio.sleep(0)
        yield TextDelta(question)
        yield UsageReport(1, 2)


def check_one_conversation(messages: list[Message]) -> None:
    """Whatever a model is shown is of one session."""
    sessions = {message.text.split()[2] for message in messages if message.role == "user"}
    assert len(sessions) == 1


@tool
async def note(text: str, context: RunContext) -> str:
    """Note a question in the state of the session."""
    await asyncio.sleep(0)
    context.state["noted"] = [*context.state.get("noted", []), text]
    await context.session.update_state("total", lambda total: total + 1, "app", 0)
    return f"noted {text}"


def questions(name: str, turns: int) -> list[str]:
    return [f"question {number} {name}" for number in range(turns)]


async def converse(handles: list[Session], turns: int) -> None:
    """So many turns on one session, several of them under way at the same time."""
    left = questions(handles[0].id, turns)

    async def work(session: Session) -> None:
        while left:
            question = left.pop(0)
            assert (await session.run_async(question)).text == f"answer to {question}"

    await asyncio.gather(*(work(handles[n % len(handles)]) for n in range(AT_ONCE)))


async def check_nothing_lost(session: Session, turns: int) -> None:
    """Each question is there once, and its answer is the end of its own turn."""
    history = await check_whole(session)
    asked = [message.text for message in history if message.role == "user"]
    assert sorted(asked) == sorted(questions(session.id, turns))
    noted: list[str] = []
    while history:
        looked = int(history[0].text.split()[1]) % 3 == 0
        turn, history = history[: 4 if looked else 2], history[4 if looked else 2 :]
        question = turn[0].text
        assert turn[-1].text == f"answer to {question}"
        if looked:
            noted.append(question)
            assert [m.text for m in turn[1:3]] == ["One moment. ", f"noted {question}"]
    assert session.get_state("noted", []) == noted
    assert len(await session.events(types="turn.completed")) == turns
    assert session.pending_inputs == []


@pytest.mark.parametrize(("workers", "count", "turns"), SIZES)
async def test_many_sessions_at_once_lose_nothing_and_interleave_nothing(
    tmp_path: Path, workers: int, count: int, turns: int
) -> None:
    address = f"sqlite:///{tmp_path / 'x.db'}"
    runtimes = [Runtime(address) for _ in range(workers)]
    agent = Agent("parrot", Parrot(), tools=[note])
    every = [[agent.session(f"s{n}", runtime=each) for each in runtimes] for n in range(count)]
    await asyncio.gather(*(converse(handles, turns) for handles in every))
    for runtime in runtimes:
        await runtime.close()
    async with Runtime(address) as runtime:
        infos = await runtime.sessions(limit=None)
        assert {info.id for info in infos} == {f"s{n}" for n in range(count)}
        for info in infos:
            await check_nothing_lost(runtime.session(info.id), turns)
        looked = sum(1 for number in range(turns) if number % 3 == 0)
        assert runtime.session("s0").get_state("total", scope="app") == count * looked
