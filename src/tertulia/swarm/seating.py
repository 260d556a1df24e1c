"""The seat of a client: at which worker it is served, and how the others reach it there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING

from tertulia.cluster.lines import NotDelivered
from tertulia.errors import WorkerLost
from tertulia.handle import conversation_of
from tertulia.swarm.answer import Answer
from tertulia.swarm.connecting import Send
from tertulia.swarm.parcels import (
    KIND,
    Answered,
    Call,
    Cancelled,
    Delivered,
    Elsewhere,
    Happened,
    Raised,
    Told,
    packed,
    told_in,
)
from tertulia.turns import own_turn

if TYPE_CHECKING:
    from tertulia.swarm.desk import Desk

PAUSE = 0.1
"""Seconds between two attempts to reach whoever serves a client."""


class Seat:
    """Taken at the first use, and kept until the client session is disposed.

    A seat only says where a client is served best: where it has its connections and its running
    turn. What may be written is decided by the log, so where a seat cannot be had, and whoever
    has it cannot be reached, the client is served here.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._cluster = desk.host.cluster
        self._place = f"client:{desk.swarm.app_name or ''}:{desk.client_id}"
        own = conversation_of(desk.host, desk.swarm.app_name, desk.client_id)
        self._own = desk.conversation is own
        """Whether its conversation is the client's own, and not that of a live session."""
        self._taken: int | None = None
        """The number of lapses when it was taken; None where it is not ours."""
        self._other: bytes | None = None
        """The worker that has it, as far as we know."""

    async def elsewhere(self) -> bytes | None:
        """The worker that serves the client; None where that is this one."""
        cluster = self._cluster
        if cluster is None or not self._own or self._taken == cluster.lapses:
            return None
        if own_turn(self._desk.conversation) is not None:
            return None
        await cluster.start()
        if self._other is None:
            lapses = cluster.lapses
            self._other = await cluster.take_seat(self._place)
            if self._other is None:
                self._taken = lapses
                if not cluster.reachable:  # whoever came here for it would come in vain
                    await cluster.leave_seat(self._place)
        return self._other

    async def claim(self) -> None:
        """Take it, whoever has it: a live session of the client is here."""
        cluster = self._cluster
        if cluster is None or not cluster.reachable:
            return
        await cluster.start()
        lapses = cluster.lapses
        other = await cluster.take_seat(self._place)
        if other is not None:
            await cluster.take_seat(self._place, over=other)
        self._taken = lapses

    async def leave(self) -> None:
        """Give it back, if it is ours."""
        taken, self._taken = self._taken, None
        if taken is not None and self._cluster is not None:
            await self._cluster.leave_seat(self._place)

    # -- asking whoever has it

    async def answer(self, call: Call) -> Answer | None:
        """The answer of whoever serves the client; None where that is this worker now."""
        async with aclosing(self.tell(call)) as telling:
            async for told in telling:
                if isinstance(told, Answered):
                    return told.answer()
        return None

    async def cancel(self, call: Call) -> bool | None:
        """Whether a turn was cancelled elsewhere; None where the client is served here."""
        async with aclosing(self.tell(call)) as telling:
            async for told in telling:
                if isinstance(told, Cancelled):
                    return told.stopped
        return None

    async def tell(self, call: Call) -> AsyncGenerator[Told]:
        """What whoever serves the client tells; nothing where that is this worker.

        A worker that has not heard the call is asked again, until it can be reached or another
        one takes its place, which may be this one; so is one that was lost before it told
        anything, where the call may be repeated. Raises WorkerLost where it was lost otherwise:
        what became of the call is not known then. Raises what the call raised there.
        """
        cluster = self._cluster
        if cluster is None:
            return
        clock = self._desk.host.clock
        deadline = clock.monotonic() + cluster.lease + 1
        while (worker := await self.elsewhere()) is not None:
            begun = False
            try:
                async with aclosing(self._ask(worker, call)) as asked:
                    async for told in asked:
                        begun = True
                        yield told
                return
            except WorkerLost as error:
                if begun or not (isinstance(error, NotDelivered) or call.repeatable):
                    raise
                self._other = None
                if clock.monotonic() > deadline:
                    return
                await asyncio.sleep(PAUSE)

    async def _ask(self, worker: bytes, call: Call) -> AsyncGenerator[Told]:
        """What another worker tells, up to the answer. Raises WorkerLost, and what it raised."""
        cluster = self._cluster
        if cluster is None:
            return
        channel = await cluster.open(worker, KIND, packed(call))
        try:
            while (data := await channel.receive()) is not None:
                told = told_in(data)
                if isinstance(told, Elsewhere):
                    raise NotDelivered("the client is not served there any more")
                if isinstance(told, Raised):
                    raise told.error()
                yield told
                if not isinstance(told, Happened | Delivered):
                    return
            raise WorkerLost("the worker that serves the client ended without an answer")
        except WorkerLost as error:
            if channel.undelivered:
                raise NotDelivered(str(error)) from error
            raise
        finally:
            await channel.close()

    async def relay(self, send: Send) -> None:
        """Hand what goes out where the client is served to somebody who is connected here."""
        desk = self._desk
        call = Call(op="connect", swarm=desk.swarm.name, client_id=desk.client_id)
        while send in desk.outlet.sends and (worker := await self.elsewhere()) is not None:
            try:
                async with aclosing(self._ask(worker, call)) as telling:
                    async for told in telling:
                        if isinstance(told, Delivered):
                            await send.give(told.outgoing)
            except WorkerLost:
                self._other = None
                await asyncio.sleep(PAUSE)
