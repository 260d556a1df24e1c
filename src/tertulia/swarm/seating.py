"""The seat of a client: at which worker it is served, and how the others reach it there."""

from __future__ import annotations

import asyncio
import logging
import random
import threading
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING

from tertulia.cluster.lines import NotDelivered
from tertulia.cluster.parts import PART, Whole
from tertulia.doors import Outcome, current_loop
from tertulia.errors import AgentError, WorkerLost
from tertulia.handle import conversation_of
from tertulia.swarm.answer import Answer
from tertulia.swarm.connecting import deliver
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
    from tertulia.cluster import Cluster
    from tertulia.cluster.channels import Channel
    from tertulia.swarm.desk import Desk

PAUSE = 0.1
"""Seconds between two attempts to reach whoever serves a client."""
LONGEST_PAUSE = 5.0
"""Seconds between two attempts of a relay, which asks for as long as somebody is connected."""
ALONE = 30.0
"""Seconds for which a client is served here, where whoever has its seat could not be reached."""
TELLING = 1.0
"""Seconds that a claim waits for the worker that it took the seat from to hear of it."""
CLAIMS = 10
"""How often a claim tries again when others claim the seat at the same time."""

_log = logging.getLogger("tertulia.swarm")


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
        self._alone_until = 0.0
        """Until then it is served here, because whoever has the seat could not be reached."""
        self.asked = 0
        """Calls that other workers carry out for us."""
        self._channels: set[Channel] = set()
        self._lock = threading.Lock()
        self._relay: tuple[asyncio.Task[None], asyncio.AbstractEventLoop] | None = None
        """Hands what goes out at another worker to those who are connected here."""
        self._pausing: Outcome[None] | None = None
        """Given when the relay need not wait any longer."""
        self._loop: asyncio.AbstractEventLoop | None = None
        """Where somebody was connected last."""

    async def elsewhere(self, *, afresh: bool = False) -> bytes | None:
        """The worker that serves the client; None where that is this one.

        `afresh` asks the store although we know of another one.
        """
        if own_turn(self._desk.conversation) is not None:
            return None
        if afresh:
            self._other = None
        return await self._find()

    async def _find(self) -> bytes | None:
        cluster = self._cluster
        if cluster is None or not self._own or self._taken == cluster.lapses:
            return None
        if self._alone_until > self._desk.host.clock.monotonic():
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
        """Take it, whoever has it, and tell who had it: a live session of the client is here."""
        cluster = self._cluster
        if cluster is None:
            return
        await cluster.start()
        if not cluster.reachable:
            return
        before: bytes | None = None
        other: bytes | None = None
        for _ in range(CLAIMS):
            lapses = cluster.lapses
            other = await cluster.take_seat(self._place, over=other)
            if other is None:
                self._taken, self._other = lapses, None
                break
            before = other
        if before is not None and other is None:
            with suppress(AgentError, TimeoutError):  # it asks when its next lease has ended
                async with asyncio.timeout(TELLING):
                    await self._tell_released(before)

    async def _tell_released(self, worker: bytes) -> None:
        async with aclosing(self._ask(worker, self._desk.call("released"))) as telling:
            async for _ in telling:
                return

    def released(self) -> None:
        """It may be another worker's now: look for it, and let others look. From any thread."""
        self._taken = self._other = None
        self._desk.outlet.send_away()
        self.watch()

    def look_again(self) -> None:
        """The lease is back: somebody else may have taken it. From any thread."""
        if self._loop is not None and self._desk.connected:
            with suppress(RuntimeError):  # the loop was closed, and who was there is gone
                self._loop.call_soon_threadsafe(self.released)

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
        self.asked += 1
        try:
            async with aclosing(self._tell(cluster, call)) as telling:
                async for told in telling:
                    yield told
        finally:
            self.asked -= 1

    async def _tell(self, cluster: Cluster, call: Call) -> AsyncGenerator[Told]:
        life, clock = self._desk.life, self._desk.host.clock
        life.use()
        deadline = clock.monotonic() + cluster.lease + 1
        while (worker := await self.elsewhere()) is not None:
            begun = False
            try:
                async with aclosing(self._ask(worker, call)) as asked:
                    while (told := await self._next(asked)) is not None:
                        begun = True
                        self._wake()
                        yield told
                return
            except WorkerLost as error:
                life.check()
                if begun or not (isinstance(error, NotDelivered) or call.repeatable):
                    raise
                self._other = None
                if clock.monotonic() > deadline:
                    self._alone_until = clock.monotonic() + ALONE
                    return
                await asyncio.sleep(PAUSE)

    async def _next(self, asked: AsyncGenerator[Told]) -> Told | None:
        """What is told next, unless the client session is disposed first."""
        life = self._desk.life
        async with life.asking():
            told = await anext(asked, None)
        life.use()
        return told

    def hang_up(self) -> None:
        """End what other workers do for us; their turns are cancelled."""
        for channel in list(self._channels):
            channel.shut("the client session was disposed")

    async def _ask(self, worker: bytes, call: Call) -> AsyncGenerator[Told]:
        """What another worker tells, up to the answer. Raises WorkerLost, and what it raised."""
        cluster = self._cluster
        if cluster is None:
            return
        data = packed(call)
        large = len(data) > PART
        channel = await cluster.open(worker, KIND, b"" if large else data)
        self._channels.add(channel)
        try:
            whole = Whole(channel)
            if large:
                await whole.send(data)
            while (data := await whole.receive()) is not None:
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
            self._channels.discard(channel)
            await channel.close()

    # -- hearing what goes out there

    def watch(self) -> None:
        """Let those who are connected here hear what goes out elsewhere; from any thread."""
        cluster, loop = self._cluster, current_loop()
        self._loop = loop or self._loop
        if cluster is None or not self._own or self._taken == cluster.lapses:
            return
        with self._lock:
            if self._relay is None and loop is not None and self._desk.outlet.near:
                self._relay = self._desk.start(self._hear()), loop
        self._wake()

    def check_heard(self) -> None:
        """End the relay where nobody is connected here any more; from any thread."""
        with self._lock:
            if self._relay is None or self._desk.outlet.near:
                return
            (task, loop), self._relay = self._relay, None
        with suppress(RuntimeError):  # a loop that was closed has ended it
            loop.call_soon_threadsafe(task.cancel)

    def _wake(self) -> None:
        if self._pausing is not None:
            self._pausing.set_result(None)

    async def _hear(self) -> None:
        """Hand on what goes out where the client is served, for as long as that is elsewhere."""
        pause = PAUSE
        try:
            while (worker := await self._found()) is not None:
                if worker and await self._hear_from(worker):
                    pause = PAUSE
                self._pausing = Outcome()
                await self._pausing.within(pause * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
                self._pausing = None
                pause = min(2 * pause, LONGEST_PAUSE)
        finally:
            with self._lock:
                if self._relay is not None and self._relay[0] is asyncio.current_task():
                    self._relay = None

    async def _found(self) -> bytes | None:
        """Who serves the client, None where that is here; nobody's name where it is not known."""
        try:
            return await self._find()
        except AgentError as error:
            told = "it is not known where client %r is served: %s"
            _log.warning(told, self._desk.client_id, type(error).__name__)
            return b""

    async def _hear_from(self, worker: bytes) -> bool:
        """Hand on what a worker tells, until it does no more; whether it has told anything."""
        told_any = False
        desk = self._desk
        try:
            async with aclosing(self._ask(worker, desk.call("connect"))) as telling:
                async for told in telling:
                    told_any = True
                    if isinstance(told, Delivered):
                        await deliver(desk.outlet.near, told.outgoing)
        except AgentError as error:
            _log.debug("worker %s is heard no more: %s", worker.hex(), type(error).__name__)
        except Exception as error:
            _log.error("a connector raised %s", type(error).__name__)
        self._other = None
        return told_any
