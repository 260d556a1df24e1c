"""A client that is lost while a tool of an agent runs."""

from __future__ import annotations

import asyncio

import pytest
from tests.live.talking import Client, history, live, settled

from tertulia import Agent, AgentNode, Runtime, tool
from tertulia.testing import ScriptedModel, call
from tertulia.wire.events import ResponseEnd


class Lookup:
    """A tool that runs until it is let go on, and counts how often it began and ended."""

    def __init__(self) -> None:
        self.reached, self.go = asyncio.Event(), asyncio.Event()
        self.begun = self.done = 0

    def agent(self) -> Agent:
        """Who calls it once, and then answers."""

        @tool
        async def look() -> str:
            """Look it up."""
            self.begun += 1
            self.reached.set()
            await self.go.wait()
            self.done += 1
            return "it is blue"

        model = ScriptedModel(["let me look ", call("look")], ["blue"], ["again"])
        return Agent("a", model=model, tools=[look])


@pytest.mark.parametrize("meanwhile", ["runs on", "has ended"])
async def test_who_comes_back_gets_the_whole_answer_and_the_tool_ran_once(meanwhile: str) -> None:
    lookup = Lookup()
    async with live(AgentNode(lookup.agent())) as (session, client):
        await client.says("which color")
        await lookup.reached.wait()
        after = max(event.seq or 0 for event in client.got)
        client.lose()
        if meanwhile == "has ended":
            lookup.go.set()
            await settled(session)
        back = (await Client(session).attach(after, again=True)).read()
        lookup.go.set()
        ended = await back.until(ResponseEnd)
        assert back.text() == "let me look blue"
        assert not ended.interrupted
        assert len(back.of(ResponseEnd)) == 1
        assert (lookup.begun, lookup.done) == (1, 1)
        roles = [role for role, _ in await history(session)]
        assert roles == ["user", "assistant", "tool", "assistant"]


async def test_who_leaves_for_good_leaves_a_history_that_goes_on() -> None:
    lookup = Lookup()
    agent = lookup.agent()
    async with Runtime("memory:") as runtime:
        async with live(AgentNode(agent), runtime=runtime) as (session, client):
            await client.says("which color")
            await lookup.reached.wait()
            client.lose(for_good=True)
            await session.wait_until_complete()
            shown = await session.conversation.history()
            assert [message.role for message in shown] == ["user", "assistant", "tool"]
            assert shown[-1].metadata == {"outcome": "unknown"}
            assert (lookup.begun, lookup.done) == (1, 0)
        async with live(AgentNode(agent), runtime=runtime) as (session, client):
            await client.says("and now")
            assert not (await client.until(ResponseEnd)).interrupted
            assert (await history(session))[-1] == ("assistant", "blue")
