"""A few connections, lent for one piece of work at a time, on the loop of the store."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any, TypeVar

from tertulia.errors import AgentError
from tertulia.stores.postgres import driver
from tertulia.stores.postgres.address import Address
from tertulia.stores.postgres.driver import Connection
from tertulia.stores.postgres.errors import Fate, NotConnected, fate, said, translate, unknown
from tertulia.stores.postgres.turns import Turns

T = TypeVar("T")
Work = Callable[[Connection], Awaitable[T]]

READING, WRITING = 3, 2
"""Connections of one store, beside the direct one: the writer has its own, which nothing else
takes."""
PATIENCE = 30.0
"""Seconds for which a server may be away before it is said to be; the wait for a connection
counts."""
ALMOST = 0.9
"""Part of the patience after which the server is known to be away: who waited it out began later
than it."""
CONNECT_SECONDS = 5.0
STATEMENT_SECONDS = 30.0
POOLED: dict[str, Any] = {"statement_cache_size": 0}
DIRECT: dict[str, Any] = {"server_settings": {"plan_cache_mode": "force_generic_plan"}}
"""A statement is planned once: what a plan depends on is the same for all of its parameters."""
FIRST_PAUSE, LONGEST_PAUSE = 0.02, 0.5
GAP = 2.0
"""Seconds without an attempt after which a failure says nothing of the next one."""


class Pauses:
    """Waits before another attempt, a little longer each time, and not for ever."""

    def __init__(self, patience: float | None = None) -> None:
        self.until = monotonic() + (PATIENCE if patience is None else patience)
        self._next = FIRST_PAUSE

    async def pause(self) -> bool:
        """False, and no wait, when the patience is at its end."""
        if monotonic() > self.until:
            return False
        await asyncio.sleep(self._next * random.uniform(0.5, 1))  # noqa: S311 - no secret
        self._next = min(self._next * 2, LONGEST_PAUSE)
        return True


class Reach:
    """Whether the server answers, as all attempts of a store have found together."""

    def __init__(self) -> None:
        self._since: float | None = None
        """When the first of the attempts began that have all failed."""
        self._last = 0.0

    def answered(self) -> None:
        self._since = None

    def lost(self, began: float) -> None:
        """An attempt that began then came to nothing."""
        if self._since is None or began > self._last + GAP:
            self._since = began
        self._last = monotonic()

    @property
    def away(self) -> bool:
        """Whether nobody has got an answer for as long as one is patient."""
        return self._since is not None and self._last - self._since >= ALMOST * PATIENCE


class Connections:
    """Knows how to connect, and keeps what is connected.

    Behind a pooler no statement is prepared for later, and all work is done in a transaction, so
    that each piece of it meets one connection. While the server is known to be away a piece of
    work is tried once, and what waits for a connection fails together.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._idle: list[Connection] = []
        self._reading, self._writing = Turns(READING), Turns(WRITING)
        self._reach = Reach()
        self._closed = False
        self.refusal: AgentError | None = None
        """Why nothing may be done any more."""

    @property
    def away(self) -> bool:
        """Whether the server is known to be away for as long as one is patient."""
        return self._reach.away

    async def run(self, work: Work[T], *, again: bool = True) -> T:
        """What `work` gives on some connection; tried again while the server is away.

        With `again` False a piece of work whose fate is not known is not done a second time.
        Raises OutcomeUnknown then, and StoreUnavailable.
        """
        pauses = Pauses()
        return await self._retried(lambda: self.attempt(work, pauses.until), pauses, again=again)

    async def retried(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """What an attempt gives, made until it is known what became of it; as `run` says."""
        return await self._retried(attempt, Pauses(), again=True)

    async def _retried(
        self, attempt: Callable[[], Awaitable[T]], pauses: Pauses, *, again: bool
    ) -> T:
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
            raise unknown(error, self._address.shown) from error
        if found is Fate.REFUSED or self.away or not await pauses.pause():
            raise translate(error, self._address.shown) from error

    async def attempt(
        self, work: Work[T], until: float | None = None, *, writing: bool = False
    ) -> T:
        """What `work` gives on some connection, tried once. Raises what the driver raises.

        The wait for a connection counts to the seconds of a statement, and none of it goes on
        after `until`.
        """
        if self.refusal is not None:
            raise self.refusal
        limit = monotonic() + STATEMENT_SECONDS
        limit = limit if until is None else min(limit, until)
        turns = self._writing if writing else self._reading
        async with (
            turns.turn(limit),
            self._judged(),
            self.lent(limit) as connection,
            asyncio.timeout_at(limit),
        ):
            if not self._address.pooled:
                return await work(connection)
            async with connection.transaction():
                return await work(connection)

    @asynccontextmanager
    async def _judged(self) -> AsyncGenerator[None]:
        """Learn from an attempt whether the server is there; where it is not, all need not wait."""
        began = monotonic()
        try:
            yield
        except Exception as error:
            if fate(error) is not Fate.LOST:
                self._reach.answered()
                raise
            self._reach.lost(began)
            if self.away:
                self._give_up(error)
            raise
        self._reach.answered()

    def _give_up(self, error: Exception) -> None:
        """The server is away: what was connected to it is of no use, and nobody shall wait."""
        while self._idle:
            self._idle.pop().terminate()
        for turns in (self._reading, self._writing):
            turns.end(f"the server does not answer: {said(error)}")

    @asynccontextmanager
    async def lent(self, until: float) -> AsyncGenerator[Connection]:
        """A connection for a while; one that failed is not used again."""
        connection = await self._take(until)
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

    async def _take(self, until: float) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
        seconds = min(CONNECT_SECONDS, max(until - monotonic(), FIRST_PAUSE))
        pooled = self._address.pooled
        return await self.connect(self._address.url, pooled=pooled, seconds=seconds)

    def _give(self, connection: Connection) -> None:
        if self._closed or connection.is_closed():
            connection.terminate()
        else:
            self._idle.append(connection)

    async def connect_directly(self) -> Connection:
        """A new connection past any pooler, for who asks alone."""
        return await self.connect(self._address.direct)

    @staticmethod
    async def connect(
        address: str, *, pooled: bool = False, seconds: float | None = None
    ) -> Connection:
        """A new connection. Raises NotConnected, where it is worth to try again."""
        options = POOLED if pooled else DIRECT
        limit = CONNECT_SECONDS if seconds is None else seconds
        try:
            return await driver.connect(address, timeout=limit, **options)
        except Exception as error:
            if fate(error) is Fate.LOST:
                raise NotConnected(said(error)) from error
            raise

    async def close(self) -> None:
        """Close those that are not lent; the others when they come back."""
        self._closed = True
        while self._idle:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(1):
                    await self._idle.pop().close()
