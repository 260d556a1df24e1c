"""Places that one holder at a time may have, and who waits for which of them."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Final

from tertulia.errors import SessionBusy, TurnTimeout
from tertulia.gate import Gate, GateDeadlock, GateFull, GateTimeout

MAX_WAITERS: Final = 1_000
TIMEOUT: Final = 600.0
"""Seconds that a call waits for its place."""

_graph = threading.Lock()
"""Guards `Place.holder` and `Holder.waits_for` everywhere."""


class Holder:
    """Whoever may hold places, and what is waited for before it can let go of them."""

    __slots__ = ("waits_for",)

    def __init__(self) -> None:
        self.waits_for: list[Place] = []


class Place:
    """Room for one holder; the others wait in the order in which they came."""

    __slots__ = ("_gate", "_name", "holder")

    def __init__(self, name: str) -> None:
        self._gate = Gate(MAX_WAITERS)
        self._name = name
        self.holder: Holder | None = None

    def __str__(self) -> str:
        return self._name

    @property
    def busy(self) -> bool:
        """Whether somebody is inside."""
        return self._gate.busy

    @asynccontextmanager
    async def held_by(
        self, holder: Holder | None, holding: Sequence[Holder]
    ) -> AsyncGenerator[None]:
        """Wait for the place and have it inside the block.

        `holding` are those who cannot let go of their places before this is done. Raises
        SessionBusy when too many wait, or when the wait could never end, and TurnTimeout.
        """
        with self._waited_for(holding):
            await self._enter()
        try:
            with _graph:
                self.holder = holder
            yield
        finally:
            with _graph:
                self.holder = None
            self._gate.leave()

    @contextmanager
    def _waited_for(self, holding: Sequence[Holder]) -> Generator[None]:
        with _graph:
            if holding and self._leads_to(holding):
                raise SessionBusy(
                    f"{self} is held by a call that waits for this one; let calls of several "
                    "entities call them in the same order"
                )
            for holder in holding:
                holder.waits_for.append(self)
        try:
            yield
        finally:
            with _graph:
                for holder in holding:
                    holder.waits_for.remove(self)

    def _leads_to(self, holding: Sequence[Holder]) -> bool:
        """Whether the holder of this waits, perhaps by way of others, for one of `holding`."""
        seen: set[Place] = set()
        left: list[Place] = [self]
        while left:
            place = left.pop()
            if place in seen or place.holder is None:
                continue
            if place.holder in holding:
                return True
            seen.add(place)
            left.extend(place.holder.waits_for)
        return False

    async def _enter(self) -> None:
        try:
            await self._gate.enter(TIMEOUT)
        except GateFull:
            raise SessionBusy(f"{self._gate.waiting} calls wait for {self} already") from None
        except GateDeadlock:
            raise SessionBusy(
                f"{self} is in use by a task of this event loop, which a synchronous call here "
                "would block; await the asynchronous method instead"
            ) from None
        except GateTimeout:
            raise TurnTimeout(f"{self} did not become free in {TIMEOUT:g} s") from None
