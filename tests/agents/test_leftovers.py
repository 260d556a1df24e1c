"""What turns leave behind in memory: nothing that waits for a collection of garbage."""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from tertulia import Agent, MemoryStore, Runtime, Swarm
from tertulia.agents.exchange import Exchange
from tertulia.swarm.oversight import SwarmOversight
from tertulia.testing import ScriptedModel
from tertulia.turns import Turn


@pytest.fixture(autouse=True)
def no_collections() -> Iterator[None]:
    """Only what nothing refers to goes; cycles stay."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def left() -> int:
    kinds = Exchange | Turn | SwarmOversight
    return sum(isinstance(each, kinds) for each in gc.get_objects())


async def grown(say: Callable[[str], Awaitable[Any]]) -> int:
    """How many more there are after five turns than after the one before, which may still end."""
    await say("first")
    before = left()
    for number in range(5):
        await say(f"{number}")
    return left() - before


async def test_turns_are_gone_when_they_have_ended() -> None:
    model = ScriptedModel(*("Yes.",) * 6)
    async with Runtime(MemoryStore()) as runtime:
        session = Agent(model=model).session("s", runtime=runtime)
        assert await grown(session.run_async) == 0


async def test_turns_of_a_client_are_gone_when_they_have_ended() -> None:
    shop = Swarm("shop", agents=[Agent(name="triage", model=ScriptedModel(*("Yes.",) * 6))])
    async with (
        Runtime(MemoryStore(), swarms=[shop]) as runtime,
        runtime.client_session("client-1", "shop") as client,
    ):
        assert await grown(client.execute) == 0
