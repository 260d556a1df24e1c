"""Who may use a connection now: a few at a time, in order, and nobody waits for ever."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from tertulia.errors import StoreUnavailable
from tertulia.stores.postgres.errors import NotConnected

WAITING = 32_768
"""Pieces of work that may wait for a connection; one more is refused."""


class Turns:
    """On one loop."""

    def __init__(self, free: int) -> None:
        self._free = free
        self._waiting: OrderedDict[asyncio.Future[None], None] = OrderedDict()

    @asynccontextmanager
    async def turn(self, until: float) -> AsyncGenerator[None]:
        """Wait for a turn, until then by the clock of the loop, and have it.

        Raises StoreUnavailable and NotConnected.
        """
        await self._begin(until)
        try:
            yield
        finally:
            self._pass_on()

    def end(self, why: str) -> None:
        """Raise NotConnected for all who wait now."""
        waiting, self._waiting = self._waiting, OrderedDict()
        for each in waiting:
            if not each.done():
                each.set_exception(NotConnected(why))

    async def _begin(self, until: float) -> None:
        if self._free:
            self._free -= 1
            return
        if len(self._waiting) >= WAITING:
            raise StoreUnavailable(
                f"{WAITING} pieces of work wait for a connection, and this one may not: slow down"
            )
        mine = asyncio.get_running_loop().create_future()
        self._waiting[mine] = None
        try:
            async with asyncio.timeout_at(until):
                await mine
        except BaseException as error:
            if mine.done() and not mine.cancelled() and mine.exception() is None:
                self._pass_on()
            if isinstance(error, TimeoutError):
                raise NotConnected("no connection was free in time") from error
            raise
        finally:
            self._waiting.pop(mine, None)

    def _pass_on(self) -> None:
        """Give a turn that has ended to who has waited longest."""
        while self._waiting:
            following, _ = self._waiting.popitem(last=False)
            if not following.done():
                following.set_result(None)
                return
        self._free += 1
