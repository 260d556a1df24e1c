"""Those who are connected to the workers of the simulation, and what they do for a day."""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic

from benchmarks.live_settings import HOST
from benchmarks.scale_model import Load
from tertulia.client.client import LiveClient
from tertulia.errors import AgentError

BUSIEST = 0.6
"""The part of the day at which most are connected."""
NIGHT = 0.2
"""Of the connections of the peak."""
LOST = 0.1
"""Of the connections, that do not say goodbye."""
PATIENCE = 15.0
LONGEST_PAUSE = 0.5
"""Seconds before who was lost comes back."""


@dataclass
class Town:
    """Those who are connected, and what became of what they said."""

    ports: list[int]
    load: Load
    said: str
    turns: int = 0
    visits: int = 0
    again: int = 0
    """Connections that came back after they were lost."""
    failed: Counter[str] = field(default_factory=Counter[str])
    waits: list[float] = field(default_factory=list[float])
    connected: int = 0
    most: int = 0

    async def live(self, number: int, began: float, day: float) -> None:
        """One client, for a day: there while the curve says so."""
        visit = 0
        while (now := (monotonic() - began) / day) < 1:
            if number / self.load.connections > curve(now):
                await asyncio.sleep(day / 200)
                continue
            visit += 1
            await self._visit(f"c{number}-{visit}", began + day)

    async def _visit(self, session: str, end: float) -> None:
        """Come, speak, lose the connection or not, and go."""
        leaves = min(end, monotonic() + random.expovariate(1 / self.load.stays))
        after, first = None, True
        while monotonic() < leaves:
            client = LiveClient(self._url(), session_id=session, after=after, reconnect=False)
            try:
                async with asyncio.timeout(PATIENCE):
                    await client.__aenter__()
                self.visits += first
                self.again += not first
                first = False
                await self._talk(client, leaves)
                return
            except (AgentError, OSError, TimeoutError) as error:
                self.failed[type(error).__name__] += 1
                after = client.seq or after
                await asyncio.sleep(random.uniform(0.1, LONGEST_PAUSE))
            finally:
                client.abort() if random.random() < LOST else await _closed(client)

    async def _talk(self, client: LiveClient, leaves: float) -> None:
        self.connected += 1
        self.most = max(self.most, self.connected)
        try:
            await _until(leaves, random.uniform(0, self.load.turn_every))
            while monotonic() < leaves:
                began = monotonic()
                async with asyncio.timeout(PATIENCE):
                    await client.say(self.said)
                self.turns += 1
                self.waits.append(monotonic() - began)
                await _until(leaves, self.load.turn_every * random.uniform(0.5, 1.5))
        finally:
            self.connected -= 1

    def _url(self) -> str:
        return f"ws://{HOST}:{random.choice(self.ports)}/ws"


async def _until(leaves: float, pause: float) -> None:
    """Wait so many seconds, or until it is time to go."""
    await asyncio.sleep(max(0.0, min(pause, leaves - monotonic())))


async def _closed(client: LiveClient) -> None:
    with suppress(AgentError, OSError, TimeoutError):
        async with asyncio.timeout(5):
            await client.close()


def curve(part: float) -> float:
    """The part of the peak that is connected at a part of the day."""
    wave = (1 + math.cos(2 * math.pi * (part - BUSIEST))) / 2
    return NIGHT + (1 - NIGHT) * wave


def mean() -> float:
    """The part of the peak that is connected on average."""
    return (1 + NIGHT) / 2
