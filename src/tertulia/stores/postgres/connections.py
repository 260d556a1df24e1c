"""A few connections, lent for one piece of work at a time, on the loop of the store."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any, TypeVar

from tertulia.errors import AgentError, OutcomeUnknown
from tertulia.stores.postgres import driver
from tertulia.stores.postgres.address import Address
from tertulia.stores.postgres.driver import Connection
from tertulia.stores.postgres.errors import Fate, fate, translate

T = TypeVar("T")
Work = Callable[[Connection], Awaitable[T]]

MOST = 4
"""Connections of one store, beside the direct one."""
PATIENCE = 30.0
"""Seconds for which a server may be away before it is said to be."""
CONNECT_SECONDS = 5.0
STATEMENT_SECONDS = 30.0
POOLED: dict[str, Any] = {"statement_cache_size": 0}
DIRECT: dict[str, Any] = {"server_settings": {"plan_cache_mode": "force_generic_plan"}}
"""A statement is planned once: what a plan depends on is the same for all of its parameters."""
FIRST_PAUSE, LONGEST_PAUSE = 0.02, 0.5


class Pauses:
    """Waits before another attempt, a little longer each time, and not for ever."""

    def __init__(self, patience: float = PATIENCE) -> None:
        self._until = monotonic() + patience
        self._next = FIRST_PAUSE

    async def pause(self) -> bool:
        """False, and no wait, when the patience is at its end."""
        if monotonic() > self._until:
            return False
        await asyncio.sleep(self._next * random.uniform(0.5, 1))  # noqa: S311 - no secret
        self._next = min(self._next * 2, LONGEST_PAUSE)
        return True


class Connections:
    """Knows how to connect, and keeps what is connected.

    Behind a pooler no statement is prepared for later, and all work is done in a transaction, so
    that each piece of it meets one connection.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._idle: list[Connection] = []
        self._turn = asyncio.Semaphore(MOST)
        self._closed = False
        self.refusal: AgentError | None = None
        """Why nothing may be done any more."""

    async def run(self, work: Work[T], *, again: bool = True) -> T:
        """What `work` gives on some connection; tried again while the server is away.

        With `again` False a piece of work whose fate is not known is not done a second time.
        Raises OutcomeUnknown then, and StoreUnavailable.
        """
        return await self.retried(lambda: self.attempt(work), again=again)

    async def retried(self, attempt: Callable[[], Awaitable[T]], *, again: bool = True) -> T:
        """What an attempt gives, made until it is known what became of it; as `run` says."""
        pauses = Pauses()
        while True:
            try:
                return await attempt()
            except AgentError:
                raise
            except Exception as error:
                await self._after(error, pauses, again=again)

    async def _after(self, error: Exception, pauses: Pauses, *, again: bool) -> None:
        """Wait for another attempt, or raise."""
        found = fate(error)
        if found is Fate.LOST and not again and not isinstance(error, NotConnected):
            raise OutcomeUnknown(
                f"{self._address.shown}: {error}; it may or may not have been written: read "
                "before you repeat"
            ) from error
        if found is Fate.REFUSED or not await pauses.pause():
            raise translate(error, self._address.shown) from error

    async def attempt(self, work: Work[T]) -> T:
        """What `work` gives on some connection, tried once. Raises what the driver raises."""
        if self.refusal is not None:
            raise self.refusal
        async with self._turn, self.lent() as connection, asyncio.timeout(STATEMENT_SECONDS):
            if not self._address.pooled:
                return await work(connection)
            async with connection.transaction():
                return await work(connection)

    @asynccontextmanager
    async def lent(self) -> AsyncGenerator[Connection]:
        """A connection for a while; one that failed is not used again."""
        connection = await self._take()
        try:
            yield connection
        except AgentError:
            self._give(connection)
            raise
        except BaseException as error:
            if fate(error) is Fate.LOST or not isinstance(error, Exception):
                connection.terminate()
            else:
                self._give(connection)
            raise
        self._give(connection)

    async def _take(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
        return await self.connect(self._address.url, pooled=self._address.pooled)

    def _give(self, connection: Connection) -> None:
        if self._closed or connection.is_closed():
            connection.terminate()
        else:
            self._idle.append(connection)

    async def connect_directly(self) -> Connection:
        """A new connection past any pooler, for who asks alone."""
        return await self.connect(self._address.direct)

    @staticmethod
    async def connect(address: str, *, pooled: bool = False) -> Connection:
        """A new connection. Raises NotConnected, where it is worth to try again."""
        options = POOLED if pooled else DIRECT
        try:
            return await driver.connect(address, timeout=CONNECT_SECONDS, **options)
        except Exception as error:
            if fate(error) is Fate.LOST:
                raise NotConnected(str(error) or type(error).__name__) from error
            raise

    async def close(self) -> None:
        """Close those that are not lent; the others when they come back."""
        self._closed = True
        while self._idle:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(1):
                    await self._idle.pop().close()


class NotConnected(OSError):
    """There is no connection, so nothing was sent."""
