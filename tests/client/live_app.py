"""The application that the tests serve in a process of its own.

A question is ``<name> <n>``: the answer is n numbered words, ``<name>.0 <name>.1 …``. A question
``<name> <n> <m>`` stops after m words until the client presses a key of a phone, unless it
was pressed in this process before. After each answer there is a note.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from typing import Any

from tertulia import Agent
from tertulia.agents.protocol import Finished, ModelRequest, TextDelta, UsageReport
from tertulia.live import AgentNode, AgentSession, OutputNode
from tertulia.messages import Message
from tertulia.server.app import AgentApp
from tertulia.server.auth import Token
from tertulia.wire.events import AgentLog, LiveEvent, LLMRequest, ResponseEnd, UserPressedKey

PAUSE = float(os.environ.get("WORD_PAUSE", "0"))


def words(question: str) -> list[str]:
    """The words of the whole answer."""
    name, number = question.split()[:2]
    return [f"{name}.{place} " for place in range(int(number))]


async def said(question: str, key: asyncio.Event) -> AsyncIterator[str]:
    """The words, with pauses."""
    told = [int(each) for each in question.split()[2:3]]
    for place, word in enumerate(words(question)):
        if place in told:
            await key.wait()
        await asyncio.sleep(PAUSE)
        yield word


class Words(OutputNode):
    """Answers without an agent."""

    def __init__(self, key: asyncio.Event) -> None:
        super().__init__("words")
        self._key = key

    async def generate_response(self, messages: list[Message]) -> AsyncIterator[str]:
        """The words of the last question."""
        last = [message for message in messages if message.role == "user"][-1]
        async for word in said(last.text, self._key):
            yield word


class Noting(OutputNode):
    """Leaves a note after each answer that passes by; it never answers itself."""

    async def process_event(self, event: LiveEvent) -> None:
        await self.send_event(event)
        if isinstance(event, ResponseEnd):
            await self.send_event(AgentLog(name="note", payload={"of": event.request_id}))

    async def generate_response(self, messages: list[Message]) -> AsyncIterator[str]:
        for message in messages:
            yield message.text


class Script:
    """A model that answers with the words of the question."""

    name = "script"

    def __init__(self, key: asyncio.Event) -> None:
        self._key = key

    async def stream(self, request: ModelRequest) -> AsyncIterator[Any]:
        """The words of the last question."""
        last = [message for message in request.messages if message.role == "user"][-1]
        async for word in said(last.text, self._key):
            yield TextDelta(word)
        yield UsageReport(1, 1)
        yield Finished("stop")


async def setup(session: AgentSession) -> None:
    """Output node or agent node, as the environment says; then the notes."""
    key = asyncio.Event()
    answering = (
        AgentNode(Agent(name="script", model=Script(key)))
        if os.environ.get("NODE") == "agent"
        else Words(key)
    )
    noting = Noting("noting")
    session.add_node(answering)
    session.add_node(noting)
    session.add_edge(answering, noting)

    @session.on_event("system.user.dtmf")
    def pressed(_session: AgentSession, event: UserPressedKey) -> None:
        del event
        key.set()

    @session.on_event("system.llm.request")
    def asked(_session: AgentSession, event: LLMRequest) -> None:
        print("asked", event.id, flush=True)

    await session.start()
    await session.wait_until_complete()


app = AgentApp(
    setup,
    auth=Token(json.loads(os.environ["TOKENS"])) if "TOKENS" in os.environ else None,
    finish_in=float(os.environ.get("FINISH_IN", "20")),
    resume_for=float(os.environ.get("RESUME_FOR", "30")),
)
