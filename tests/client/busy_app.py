"""A graph with much beside its answers: a note for each line of the user, a filter, an agent.

The agent answers at once. A question ``pay`` waits until somebody approves, which a key of a phone
does; ``fail`` has no answer.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from itertools import pairwise

from tertulia import Agent, tool
from tertulia.agents.protocol import (
    Finished,
    ModelEvent,
    ModelRequest,
    TextDelta,
    ToolCallMade,
    UsageReport,
)
from tertulia.errors import ModelError
from tertulia.live import AgentNode, AgentSession, BackgroundNode, Node
from tertulia.messages import ToolCall
from tertulia.server.app import AgentApp
from tertulia.wire.events import AgentLog, LiveEvent, TranscriptUpdate, UserPressedKey


def answer_to(question: str) -> str:
    """The whole answer."""
    return f"You said {question} and I heard it."


class Noting(BackgroundNode):
    """Leaves a note for each line of the user."""

    async def process_event(self, event: LiveEvent) -> None:
        if isinstance(event, TranscriptUpdate) and event.role == "user":
            await self.send_event(AgentLog(name="note", payload={"of": event.content}))


class Passing(Node):
    """A filter that lets everything pass."""

    async def process_event(self, event: LiveEvent) -> None:
        await self.send_event(event)


@tool(requires_approval=True)
def pay(amount: int) -> str:
    """Pay."""
    return f"paid {amount}"


class Model:
    """Answers at once, in three pieces."""

    name = "busy"

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """The answer to the last message."""
        last = request.messages[-1]
        if last.text == "fail":
            raise ModelError("the model is out of order")
        if last.text == "pay":
            yield TextDelta("One moment. ")
            yield ToolCallMade(ToolCall(id="call_1", name="pay", arguments={"amount": 7}))
            yield Finished("tool_calls")
            return
        said = "Paid." if last.role == "tool" else answer_to(last.text)
        third = len(said) // 3
        for piece in (said[:third], said[third : 2 * third], said[2 * third :]):
            yield TextDelta(piece)
        yield UsageReport(1, 1)
        yield Finished("stop")


async def setup(session: AgentSession) -> None:
    """The notes, then the filter, then the agent; or the notes at the end."""
    noting, passing = Noting("noting"), Passing("passing")
    answering = AgentNode(Agent("busy", model=Model(), tools=[pay]))
    chain = [noting, passing, answering]
    if os.environ.get("NODE") == "last":
        chain = [passing, answering, noting]
    for node in chain:
        session.add_node(node)
    for parent, child in pairwise(chain):
        session.add_edge(parent, child)

    @session.on_event("system.user.dtmf")
    async def pressed(session: AgentSession, event: UserPressedKey) -> None:
        del event
        for call in session.conversation.pending:
            await asyncio.to_thread(session.conversation.approve, call.id)
        await session.send_event(AgentLog(name="approved"))

    await session.start()
    await session.wait_until_complete()


app = AgentApp(setup)
