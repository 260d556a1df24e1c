"""What the tests of the bus share."""

from __future__ import annotations

import asyncio
from typing import Any

from tertulia.bus import BusEvent


def event(kind: str = "execute", client: str = "client-1", **fields: Any) -> BusEvent:
    """An event of a session."""
    return BusEvent(type=kind, source="session-bus", client_id=client, **fields)


def numbered(number: int, client: str = "client-1") -> BusEvent:
    """An event that says which one it is."""
    return event(client=client, input={"number": number})


def numbers(events: list[BusEvent]) -> list[int]:
    """Which ones these are."""
    return [each.input["number"] for each in events]


async def settle() -> None:
    """Let the loop do what was scheduled."""
    for _ in range(3):
        await asyncio.sleep(0)


class SteppedClock:
    """A clock that stands still until it is told to go on."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> int:
        return int(self.seconds * 1_000_000)

    def monotonic(self) -> float:
        return self.seconds
