"""A session without a socket, and who talks with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

from tertulia import MemoryStore, Runtime
from tertulia.compat.atoms.session import CrewSession
from tertulia.live.link import Link
from tertulia.live.session import Settings
from tertulia.wire.events import LiveEvent, LLMRequest, SystemInit, TranscriptUpdate

PATIENCE = 10.0
Setup = Callable[[CrewSession], None]


class Talk:
    """The client of one session."""

    def __init__(self, session: CrewSession) -> None:
        self.session = session
        self.link = Link()

    async def send(self, *events: LiveEvent) -> None:
        """Say something."""
        for event in events:
            await self.session.receive(event)

    async def next(self) -> LiveEvent:
        """The next event."""
        async with asyncio.timeout(PATIENCE):
            assert await self.link.wait(), f"closed: {self.link.closed}"
        event = self.link.next()
        assert event is not None
        self.session.answers.delivered(event)
        return event

    async def until(self, kind: str) -> list[LiveEvent]:
        """The events up to one of a type, with it."""
        told = [await self.next()]
        while told[-1].type != kind:
            told.append(await self.next())
        return told

    async def ask(self, text: str | None = None) -> str:
        """The answer to a request, which is over when the request comes back."""
        if text is not None:
            await self.send(TranscriptUpdate(role="user", content=text))
        await self.send(LLMRequest())
        told = await self.until("system.llm.request")
        return "".join(getattr(event, "text", "") for event in told)


@asynccontextmanager
async def talk(setup: Setup, init: SystemInit | None = None) -> AsyncGenerator[Talk]:
    """A session that was set up and has started."""
    runtime = Runtime(MemoryStore())
    session = CrewSession(runtime.session("s"), init, settings=Settings(echo=True))
    try:
        setup(session)
        made = Talk(session)
        await session.open()
        await session.attach(made.link)
        await session.start()
        assert (await made.next()).type == "agent.ready"
        yield made
    finally:
        await session.stop()
        await runtime.close()


def told(events: list[LiveEvent]) -> list[Any]:
    """The types of events; of pieces of text and of logs, what they say."""
    return [
        getattr(event, "text", None) or getattr(event, "name", None) or event.type
        for event in events
    ]
