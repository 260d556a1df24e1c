"""What the tests of clients share: a store to restart on, a swarm of one agent, and a listener."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from tertulia import Agent, MemoryStore, Message, Runtime, SQLiteStore, Swarm
from tertulia.bus import BusEvent
from tertulia.policies import Policy, PolicyContext, Refusal
from tertulia.testing import FrozenClock, ScriptedModel

SWARM = "shop"


class Stage:
    """A store, and runtimes on it; all of them are closed at the end of the test."""

    def __init__(self, kind: str, folder: Path, clock: FrozenClock) -> None:
        self.kind = kind
        self.clock = clock
        self._file = folder / "swarm.db"
        self._runtimes: list[Runtime] = []

    def runtime(self, *swarms: Swarm, **options: Any) -> Runtime:
        """A runtime; on the same data as the one before, where the store is a file."""
        store = MemoryStore() if self.kind == "memory" else SQLiteStore(self._file)
        made = Runtime(store, clock=self.clock, swarms=list(swarms), **options)
        self._runtimes.append(made)
        return made

    async def close(self) -> None:
        for runtime in self._runtimes:
            await runtime.close()


def swarm_of(model: ScriptedModel, *policies: Policy, tools: Any = (), **options: Any) -> Swarm:
    """A swarm with one agent, ``triage``."""
    agent = Agent(name="triage", model=model, tools=list(tools))
    return Swarm(options.pop("name", SWARM), agents=[agent], policies=policies, **options)


class Without(Policy):
    """Refuses what has a word in it, said or told."""

    def __init__(self, word: str, **options: Any) -> None:
        super().__init__(name=options.pop("name", f"without-{word}"), **options)
        self.word = word

    async def validate_input(self, message: str, context: PolicyContext, /) -> bool | Refusal:
        return self._judge(message)

    async def validate_output(self, text: str, context: PolicyContext, /) -> bool | Refusal:
        return self._judge(text)

    def _judge(self, text: str) -> bool | Refusal:
        return self.refuse(f"it names {self.word}") if self.word in text else True


class Heard:
    """A listener that keeps what it hears."""

    def __init__(self) -> None:
        self.events: list[BusEvent] = []

    def __call__(self, event: BusEvent) -> None:
        self.events.append(event)

    @property
    def topics(self) -> list[str]:
        return [event.topic for event in self.events]

    def of(self, topic: str) -> list[BusEvent]:
        return [event for event in self.events if event.topic == topic]


def said(messages: list[Message]) -> list[tuple[str, str]]:
    """Messages as roles and texts."""
    return [(message.role, message.text) for message in messages]


def asked(model: ScriptedModel, number: int = -1) -> str:
    """All that the model was asked with, as one text."""
    return "\n".join(message.text for message in model.requests[number].messages)


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Let others run until something is so; fails where it never is."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0)


async def soon(awaited: Awaitable[Any], seconds: float = 10.0) -> Any:
    """The result; fails where it never comes."""
    return await asyncio.wait_for(awaited, seconds)
