"""`tertulia usage`."""

from __future__ import annotations

import asyncio

import pytest
from tests.cli.program import Program

from tertulia import Agent, Runtime
from tertulia.agents.models import TextDelta, UsageReport
from tertulia.errors import ModelError
from tertulia.testing import ScriptedModel


def used(taken: int, made: int) -> list[object]:
    return [TextDelta("So be it."), UsageReport(taken, made)]


async def _talk(url: str) -> None:
    async with Runtime(url) as runtime:
        cheap = Agent("cheap", ScriptedModel(used(10, 5), used(20, 5), name="small"))
        dear = Agent("dear", ScriptedModel(used(100, 50), name="large"))
        session = cheap.session("s", runtime=runtime)
        await session.run_async("one")
        await session.run_async("two")
        await dear.run("three", session=session)
        fork = await session.fork("fork")
        failing = Agent("cheap", ScriptedModel([UsageReport(3, 0), ModelError("it is down")]))
        with pytest.raises(ModelError):
            await failing.run("four", session=fork)


@pytest.fixture
def talked(empty: Program) -> Program:
    """A store with two agents in one session, and a fork of it."""
    asyncio.run(_talk(empty.url))
    return empty


def test_usage_is_told_in_all_and_by_agent_and_model(talked: Program) -> None:
    lines = [line.split() for line in talked.ok("usage", "s").splitlines()]
    assert lines == [
        ["agent", "model", "requests", "input", "output", "total"],
        ["cheap", "small", "2", "30", "10", "40"],
        ["dear", "large", "1", "100", "50", "150"],
        ["all", "-", "3", "130", "60", "190"],
    ]


def test_usage_as_json_adds_up(talked: Program) -> None:
    told = talked.json("usage", "s")
    assert (told["requests"], told["total_tokens"]) == (3, 190)
    assert sum(part["total_tokens"] for part in told["by"]) == 190


def test_a_fork_does_not_count_what_it_inherited(talked: Program) -> None:
    assert talked.json("usage", "fork")["output_tokens"] == 0


def test_a_session_that_no_model_was_asked_in_has_used_nothing(program: Program) -> None:
    told = program.json("usage", "s0")
    assert (told["requests"], told["by"]) == (0, [])
