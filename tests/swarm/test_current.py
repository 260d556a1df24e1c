"""How a tool gets the client that it works for."""

from __future__ import annotations

import asyncio

import pytest
from tests.swarm.stage import SWARM, Stage, swarm_of

from tertulia import Agent, Runtime, Swarm, tool
from tertulia.errors import UsageError
from tertulia.swarm import ClientSession, Outgoing, current_client
from tertulia.testing import ScriptedModel, call


async def test_a_tool_gets_the_client_whose_turn_it_is_in(stage: Stage) -> None:
    found: list[ClientSession] = []

    @tool
    async def look() -> str:
        """Look."""
        found.append(current_client())
        return "seen"

    steps = [call("look"), "Done."] * 2
    runtime = stage.runtime(swarm_of(ScriptedModel(*steps), tools=[look]))
    for name in ("ann", "bob"):
        client = runtime.client_session(name, SWARM)
        await client.execute("Look")
        assert found[-1] is client


async def test_a_tool_that_is_not_async_tells_its_client_something_from_its_thread(
    stage: Stage,
) -> None:
    heard: list[str] = []

    @tool
    def look() -> str:
        """Look."""
        asyncio.run(current_client().notify("Looking…"))
        return "seen"

    async def phone(outgoing: Outgoing) -> None:
        heard.append(outgoing.data)

    model = ScriptedModel(call("look"), "Done.")
    client = stage.runtime(swarm_of(model, tools=[look])).client_session("ann", SWARM)
    client.connect(phone)
    assert await client.execute("Look") == "Done."
    assert heard == ["Looking…"]


async def test_outside_of_a_turn_there_is_no_current_client(stage: Stage) -> None:
    later: list[asyncio.Task[ClientSession]] = []
    ended = asyncio.Event()

    @tool
    async def begin() -> str:
        """Begin something that outlives the turn."""
        later.append(asyncio.create_task(after_the_end()))
        return "begun"

    async def after_the_end() -> ClientSession:
        await ended.wait()
        return current_client()

    model = ScriptedModel(call("begin"), "Done.")
    client = stage.runtime(swarm_of(model, tools=[begin])).client_session("ann", SWARM)
    await client.execute("Begin")
    ended.set()
    for outside in (later[0], asyncio.to_thread(current_client)):
        with pytest.raises(UsageError, match=r"runtime\.client_session\(client_id, swarm\)"):
            await outside


async def test_an_agent_without_a_swarm_has_no_current_client() -> None:
    @tool
    async def look() -> str:
        """Look."""
        return current_client().client_id

    agent = Agent("lonely", model=ScriptedModel(call("look"), "Done."), tools=[look])
    async with Runtime("memory:", swarms=[Swarm(SWARM, [Agent("other")])]) as runtime:
        session = agent.session("s", runtime=runtime)
        await session.run_async("Look")
        results = [m.text for m in await session.history() if m.role == "tool"]
        assert "not a part of a turn of a swarm" in results[0]
