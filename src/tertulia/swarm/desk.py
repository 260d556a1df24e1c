"""The desk of a client session: its parts, and what they do for each other.

`ClientSession` is what users see of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from tertulia import admission, slots
from tertulia.agents.exchange import Exchange
from tertulia.agents.loop import Plan
from tertulia.agents.streaming import respond
from tertulia.bus import Bus, Subscription
from tertulia.doors import current_loop
from tertulia.errors import InvalidInput, SessionBusy, TurnInterrupted, TurnTimeout, UsageError
from tertulia.gate import Gate, GateFull, GateTimeout
from tertulia.host import Host
from tertulia.messages import Message
from tertulia.policies import Verdict
from tertulia.session import Session
from tertulia.swarm.answer import Answer, answer_of
from tertulia.swarm.connecting import Live, Send
from tertulia.swarm.driver import SwarmDriver
from tertulia.swarm.feed import Feed
from tertulia.swarm.guard import Guard, Noted
from tertulia.swarm.life import Forget, Life
from tertulia.swarm.navigation import Navigator
from tertulia.swarm.outlet import Outlet
from tertulia.swarm.oversight import SwarmOversight, inside
from tertulia.swarm.pacing import Paced
from tertulia.swarm.parcels import Call, Op
from tertulia.swarm.seating import Seat
from tertulia.swarm.stepping import within
from tertulia.swarm.swarm import Swarm
from tertulia.turns import own_turn

if TYPE_CHECKING:
    from tertulia.swarm.client import ClientSession

MAX_ADMITTED = 1_000
"""Messages of a client that wait for its policies."""
MAX_PACED = 100
"""Different delays of `scheduled` and `rate` that a client may have."""
P = TypeVar("P", bound=Paced)
S = TypeVar("S", bound=Send)
MAX_SENDS = 1_000
"""Connections of a client."""


class _Admission:
    """A message that the policies of a desk look at; `open` until they have."""

    def __init__(self, desk: Desk, depth: int) -> None:
        self.desk = desk
        self.depth = depth
        self.open = True


_admitting: ContextVar[tuple[_Admission, ...]] = ContextVar("tertulia_admitting", default=())
"""What the calling code, which is a policy or a callback then, helps to admit."""


class Desk:
    """Where one client is served by one swarm."""

    def __init__(  # noqa: PLR0913, PLR0917
        self,
        client: ClientSession,
        client_id: str,
        swarm: Swarm,
        session: Session,
        host: Host,
        bus: Bus,
        forget: Forget | None,
    ) -> None:
        self.client = client
        self.client_id = client_id
        self.swarm = swarm
        self.session = session
        self.host = host
        self.bus = bus
        self.conversation = session._conversation  # pyright: ignore[reportPrivateUsage]
        self.driver = SwarmDriver(self)
        self.feed = Feed(bus, client_id, swarm.name)
        self.feed.tells_changes = swarm.callbacks.on_agent_changed is not None
        self.feed.attach(self.conversation)
        self.guard = Guard(swarm, client_id, session, host, bus, self.feed)
        self.life = Life(self, forget)
        self.seat = Seat(self)
        self.navigator = Navigator(swarm, session)
        self.outlet = Outlet(self)
        self.owned: list[Subscription] = []
        """Subscriptions that end with the client session."""
        self._look_through_at = 100
        """How many of them there may be until those that are cancelled are let go of."""
        self._door = Gate(MAX_ADMITTED)
        self._paced: dict[tuple[type[Paced], float], Paced] = {}

    @property
    def agent(self) -> str:
        """The name of the agent that has the floor."""
        return self.navigator.agent

    @property
    def connected(self) -> bool:
        """Whether somebody is connected."""
        return bool(self.outlet.sends)

    @property
    def live(self) -> Live | None:
        """The live session that is connected, if one is."""
        return self.outlet.live

    @property
    def expected(self) -> bool:
        """Whether a message is looked at by policies, or waits to be executed."""
        return self._door.busy or any(paced.waiting for paced in self._paced.values())

    # -- who comes and goes

    async def begin(self) -> None:
        """It is about to be used. Raises ClientDisposed, UsageError where no event loop runs."""
        if current_loop() is None:
            raise UsageError(
                "a client session is used on an event loop: await client.execute(…) and the like "
                "in a coroutine; in a thread, hand that to asyncio.run_coroutine_threadsafe(…)"
            )
        await self.life.begin()
        self.seat.watch()

    def join(self, send: S) -> S:
        """Somebody is connected from here on. Raises ClientDisposed, InvalidInput."""
        self.check_room()
        self.outlet.connect(send)
        self.seat.watch()
        return send

    def check_room(self) -> None:
        """Raises ClientDisposed, and InvalidInput where too many are connected."""
        self.life.check()
        if len(self.outlet.sends) >= MAX_SENDS:
            raise InvalidInput(
                f"client {self.client_id!r} has {MAX_SENDS} connections; close() those that are "
                "not needed any more"
            )

    def disconnect(self, send: Send) -> None:
        """Somebody is not connected any more; nothing happens if that was so."""
        self.outlet.sends.pop(send, None)
        self.seat.check_heard()

    def own(self, subscription: Subscription) -> Subscription:
        """Let a subscription end with this session."""
        if len(self.owned) >= self._look_through_at:
            self.owned = [each for each in self.owned if not each.cancelled]
            self._look_through_at = max(2 * len(self.owned), 100)
        self.owned.append(subscription)
        return subscription

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something as a task of this session."""
        return self.life.start(work)

    # -- executing

    async def admit(self, request: Message, seconds: float | None = None) -> Verdict | Answer:
        """The verdict on what the client said; where it is refused, what the client gets.

        One at a time, so that turns begin in the order in which they were asked for. `seconds` is
        how long to wait for those before. Raises PolicyError, TurnTimeout, ClientDisposed, also
        where it is disposed meanwhile.
        """
        await self.begin()
        verdict = await within(self._in_turn(request, seconds), self.life.asking)
        self.life.check()
        if verdict.allowed:
            return verdict
        await self.guard.record(verdict, request.text)
        await self.life.heard()
        return Answer(verdict.message, "ban", agent=self.agent, verdict=verdict)

    async def _in_turn(self, request: Message, seconds: float | None) -> Verdict:
        outer = [each for each in _admitting.get() if each.desk is self and each.open]
        if outer:  # a policy or a callback asks
            return await self._look_at(request, outer[-1].depth + 1)
        try:
            await self._door.enter(seconds)
        except GateFull:
            raise SessionBusy(
                f"{MAX_ADMITTED} messages of client {self.client_id!r} wait already",
                session_id=self.session.id,
            ) from None
        except GateTimeout:
            raise TurnTimeout(
                f"the policies did not come to a message of client {self.client_id!r} in time",
                session_id=self.session.id,
            ) from None
        try:
            return await self._look_at(request, 0)
        finally:
            self._door.leave()

    async def _look_at(self, request: Message, depth: int) -> Verdict:
        if depth > self.swarm.limits.max_nested:
            raise UsageError(
                f"policies or callbacks of swarm {self.swarm.name!r} execute on their own client "
                f"{depth} deep; let them ask an agent of their own instead"
            )
        admission = _Admission(self, depth)
        token = _admitting.set((*_admitting.get(), admission))
        try:
            return await self._admit(request)
        finally:
            admission.open = False
            _admitting.reset(token)

    async def _admit(self, request: Message) -> Verdict:
        verdict = await self.guard.check("input", request.text, self.agent)
        if verdict.allowed and self.swarm.callbacks.on_execute is not None:
            told = {"message": request.text, "mode": (request.metadata or {}).get("mode")}
            await self.life.call("on_execute", self.feed.event("session", "execute", input=told))
        return verdict

    def call(self, op: Op, **said: Any) -> Call:
        """A call for the worker that serves this client."""
        inside = slots.placed()
        return Call(op=op, swarm=self.swarm.name, client_id=self.client_id, inside=inside, **said)

    async def execute(self, request: Message, options: Mapping[str, Any]) -> Answer:
        """What the client gets for a request, from whoever serves it."""
        self.life.check()
        given = {key: value for key, value in options.items() if value is not None}
        answer = await self.seat.answer(self.call("execute", request=request, options=given))
        if answer is not None:
            return answer
        plan = await self.prepare(request, options)
        return plan if isinstance(plan, Answer) else await self.run(plan)

    async def prepare(self, request: Message, options: Mapping[str, Any]) -> Plan | Answer:
        """The turn of a request that was admitted; where it is refused, what the client gets.

        A repetition, by its idempotency key, of one that ran or runs is not looked at again.
        Raises as `admit`, and IdempotencyConflict.
        """
        if options.get("idempotency_key") is not None and own_turn(self.conversation) is None:
            await self.begin()
            plan = self._planned(request, options, [])
            if await self._repeats(plan):
                return plan
        verdict = await self.admit(request, options.get("timeout"))
        return verdict if isinstance(verdict, Answer) else self.plan(request, verdict, options)

    async def _repeats(self, plan: Plan) -> bool:
        key, conversation = plan.asked.key, self.conversation
        if key in conversation.requests:
            return True
        row = conversation.known or await conversation.row()
        if row is None:
            return False
        conversation.check_access(row, self.session._opening)  # pyright: ignore[reportPrivateUsage]
        found = await admission.earlier(conversation, row, key, plan.asked.digest())
        return found is not None and found.status == "done"

    def plan(self, request: Message, verdict: Verdict, options: Mapping[str, Any]) -> Plan:
        """The turn of a request that was parsed and admitted."""
        notes = self.guard.notes(verdict, request.text)
        turn = own_turn(self.conversation)
        if turn is not None:
            for kind, body in notes:
                turn.note(kind, body)
            own = inside.get()
            if own is not None and own.desk is self:
                own.root.enter_nested()
            notes = []
        return self._planned(request, options, notes)

    def _planned(self, request: Message, options: Mapping[str, Any], notes: Noted) -> Plan:
        given = {key: value for key, value in options.items() if value is not None}
        plan = self.driver._plan(self.session, None, given, floor=True, resuming=False)  # pyright: ignore[reportPrivateUsage]
        asked = msgspec.structs.replace(plan.asked, messages=(request,), notes=tuple(notes))
        return msgspec.structs.replace(plan, asked=asked)

    async def run(self, plan: Plan) -> Answer:
        """Run a turn to its answer."""
        oversight = _oversight_of(plan)
        exchange = Exchange(listened=False)
        self.life.enter(exchange, oversight)
        try:
            response = await respond(plan, exchange)
        except TurnInterrupted:
            return Answer(kind="cancelled", agent=self.agent)
        finally:
            await self.life.leave(exchange)
        return answer_of(response, oversight.verdict)

    def release(self) -> None:
        """Let go of everything: it was disposed."""
        for paced in self._paced.values():
            paced.close()
        for subscription in self.owned:
            subscription.cancel()
        self._paced.clear()
        self.owned.clear()
        self.outlet.send_away()
        self.outlet.sends.clear()
        self.seat.check_heard()
        self.feed.detach(self.conversation)

    def pace(self, kind: type[P], delay: float) -> P:
        """What paces by a delay; the same one each time. Raises InvalidInput."""
        self.life.check()
        made = kind(self, delay)
        if len(self._paced) >= MAX_PACED and (kind, made.delay) not in self._paced:
            raise InvalidInput(
                f"client {self.client_id!r} is paced by {MAX_PACED} different delays already; "
                "use one of them"
            )
        found: Any = self._paced.setdefault((kind, made.delay), made)
        return found


def _oversight_of(plan: Plan) -> SwarmOversight:
    oversight: Any = plan.oversight
    return oversight
