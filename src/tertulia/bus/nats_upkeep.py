"""What goes on in the thread of a connection to NATS: to be connected, to send, to come back."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
from collections.abc import Callable
from typing import Any

from tertulia.bus.nats_address import Address
from tertulia.bus.nats_link import Heard, Link
from tertulia.bus.nats_outbox import Item, Outbox

FIRST_PAUSE = 0.05
LAST_PAUSE = 2.0
"""Seconds between attempts to connect: they double."""
STEADY = 5.0
"""Seconds after which a connection counts as one that had worked."""
REMIND = 60.0
"""Seconds after which it is said again why there is no connection."""
LOOK = 0.5
"""Seconds between two looks whether nats-py has lost the connection without saying so."""
LEAVING = 1.0
"""Seconds in which what waits has to be sent when it is closed."""

log = logging.getLogger("tertulia.nats")


class Upkeep:
    """Keeps a connection to one of the servers; on one loop, which runs nothing else."""

    def __init__(self, address: Address, change: Callable[[Link | None], None]) -> None:
        """`change` is told of a connection that is ready, and with None that it is lost."""
        self.outbox = Outbox(self.wake)
        self.subscriptions: dict[int, tuple[str, Heard]] = {}
        """Those that are wanted; changed by any thread."""
        self.live: dict[int, Any] = {}
        """Those that the server knows of."""
        self._address = address
        self._change = change
        self._loop: asyncio.AbstractEventLoop | None = None
        self._bell = asyncio.Event()
        self._stop = asyncio.Event()
        self._mine: set[asyncio.Task[Any] | None] = set()
        self._main: asyncio.Task[Any] | None = None
        self._link: Link | None = None
        self._connected = False
        self._said = ("", 0.0)

    def wake(self) -> None:
        """Have what waits sent; from any thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._bell.set)

    async def run(self) -> None:
        """Be connected to one server after the other, until it is enough."""
        loop = self._loop = asyncio.get_running_loop()
        loop.set_exception_handler(_quietly)
        self._main = asyncio.current_task()
        self._mine.add(self._main)
        self._look(loop)
        servers = list(self._address.servers)
        random.shuffle(servers)
        pause = FIRST_PAUSE
        for server in itertools.cycle(servers):
            began = loop.time()
            try:
                await self._try(server)
            except Exception:
                log.exception("the connection to NATS at %s failed; trying again", server)
            if self._stop.is_set():
                return
            pause = FIRST_PAUSE if loop.time() - began > STEADY else min(pause * 2, LAST_PAUSE)
            await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - no secret

    async def finish(self) -> None:
        """Send what waits and end `run`."""
        self._mine.add(asyncio.current_task())
        self._stop.set()
        self._bell.set()
        if self._main is None:
            return
        if self._connected:
            await asyncio.wait({self._main}, timeout=LEAVING)
        if self._link is not None:
            self._link.abort()
        self._main.cancel()
        await asyncio.wait({self._main})

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._bell.set()
        loop.call_later(LOOK, self._look, loop)

    async def _try(self, server: str) -> None:
        """Connect to a server, and use the connection until it is lost, or to the end."""
        link = self._link = Link(self._address, server, self._bell.set)
        try:
            if await link.connect():
                await self._serve(link, server)
        finally:
            await link.close(at_once=not self._stop.is_set())
            await self._end_tasks()
        if not self._stop.is_set():
            self._complain(link, server)

    async def _serve(self, link: Link, server: str) -> None:
        try:
            self.outbox.serve()
            for number in list(self.subscriptions):
                await self._see_to(link, number)
            await link.settle()
            self._connected = True
            self._said = ("", 0.0)
            self.outbox.open()
            self._change(link)
            log.info("connected to NATS at %s", server)
            await self._send(link)
        except Exception as error:
            log.debug("the connection to %s could not be used: %s", server, error)
        finally:
            self.live.clear()
            self.outbox.shut()
            if self._connected:
                self._connected = False
                self._change(None)

    async def _send(self, link: Link) -> None:
        while not link.over:
            self._bell.clear()
            batch = self.outbox.take()
            if not batch:
                if self._stop.is_set():
                    return
                await self._bell.wait()
            for item in batch:
                await self._do(link, item)
            await asyncio.sleep(0)

    async def _do(self, link: Link, item: Item) -> None:
        if isinstance(item, int):
            await self._see_to(link, item)
            return
        if link.over:
            self.outbox.drop()
            return
        try:
            await link.publish(*item)
        except Exception as error:
            self.outbox.drop()
            log.debug("a message could not be sent: %s", error)

    async def _see_to(self, link: Link, number: int) -> None:
        """Begin or end a subscription on this connection."""
        wanted = self.subscriptions.get(number)
        if wanted is None:
            if (live := self.live.pop(number, None)) is not None:
                await live.unsubscribe()
        elif number not in self.live:
            subject, heard = wanted

            def hear(subject: str, data: bytes, reply: str) -> None:
                if number in self.subscriptions:
                    heard(subject, data, reply)

            self.live[number] = await link.subscribe(subject, hear)

    def _complain(self, link: Link, server: str) -> None:
        """Say why there is no connection: once, and then from time to time."""
        now = asyncio.get_running_loop().time()
        reason, since = self._said
        if link.reason != reason or now - since > REMIND:
            self._said = (link.reason, now)
            log.warning("no connection to NATS at %s: %s; trying again", server, link.reason)

    async def _end_tasks(self) -> None:
        """End what nats-py has left running: nothing else runs on this loop."""
        left = asyncio.all_tasks() - self._mine
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


def _quietly(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What goes wrong in a connection that is thrown away is no news."""
    log.debug("%s: %r", context.get("message"), context.get("exception"))
