"""The application that the browser talks to: `python live_app.py PORT DATABASE`.

It counts ("count 3"), thinks until its client was gone and is back ("later 3"), repeats
("say ..."), and ends the call ("goodbye"). With the variable "agent" an agent counts instead.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

from tertulia import Agent
from tertulia.agents.protocol import Finished, ModelEvent, ModelRequest, TextDelta
from tertulia.live import AgentNode, AgentSession, Node, OutputNode
from tertulia.messages import Message
from tertulia.server.app import AgentApp
from tertulia.wire.events import AgentLog, EndCall, LiveEvent, LLMRequest

PACE = 0.01  # seconds from word to word
LONG_BACK = 1.2  # seconds: longer than a client waits for what it missed


class Thinking(Node):
    """Lets a request for "later" wait until its client has come back."""

    async def process_event(self, event: LiveEvent) -> None:
        newest = (await self.session.conversation.history())[-1:]
        if isinstance(event, LLMRequest) and newest and newest[0].text.startswith("later"):
            await self.send_event(AgentLog(name="thinking"))
            while self.session.connected:
                await asyncio.sleep(PACE)
            while not self.session.connected:
                await asyncio.sleep(PACE)
            await asyncio.sleep(LONG_BACK)
        await self.send_event(event)


class Answers(OutputNode):
    """Counts, repeats, or ends the call."""

    async def generate_response(self, messages: list[Message]) -> AsyncIterator[str]:
        order, _, rest = messages[-1].text.partition(" ")
        if order == "say":
            yield rest
        if order == "goodbye":
            yield "Goodbye."
            await self.send_event(EndCall())
        for number in range(int(rest) if order in ("count", "later") else 0):
            yield f"w{number}😀 "
            await asyncio.sleep(PACE)


class Counting:
    """A model that counts as it is told."""

    name = "counting"

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """The words, with a pause after each."""
        for number in range(int(request.messages[-1].text.partition(" ")[2])):
            yield TextDelta(f"w{number}😀 ")
            await asyncio.sleep(PACE)
        yield Finished("stop")


async def setup(session: AgentSession) -> None:
    """One graph for those who want an agent, and one for all others."""
    if "agent" in session.initial_variables:
        session.add_node(AgentNode(Agent("counter", model=Counting())))
        await session.start()
        await session.wait_until_complete()
        return
    thinking, answers = Thinking("thinking"), Answers("answers", is_interruptible=True)
    session.add_node(thinking)
    session.add_node(answers)
    session.add_edge(thinking, answers)
    await session.start()
    await session.wait_until_complete()


if __name__ == "__main__":
    AgentApp(setup, store=f"sqlite:///{sys.argv[2]}").run(port=int(sys.argv[1]))
