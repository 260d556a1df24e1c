"""ClientSession: one client's conversation with a swarm, as long as somebody needs it here."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator, Mapping
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import msgspec

from tertulia import hiding
from tertulia.agents.exchange import Exchange
from tertulia.agents.loop import Plan
from tertulia.agents.streaming import respond
from tertulia.bus import Bus, BusEvent, Subscription
from tertulia.errors import InvalidInput, SessionBusy, TurnInterrupted
from tertulia.gate import Gate, GateFull
from tertulia.handle import MessageLike
from tertulia.host import Host
from tertulia.messages import Message, parse
from tertulia.policies import Verdict
from tertulia.session import Session
from tertulia.swarm.answer import COMMITTED, Answer, answer_of
from tertulia.swarm.connecting import Connector, Live, Send
from tertulia.swarm.driver import SwarmDriver
from tertulia.swarm.feed import Feed
from tertulia.swarm.guard import Guard
from tertulia.swarm.life import Forget, Life
from tertulia.swarm.navigation import Navigator
from tertulia.swarm.outlet import Outlet
from tertulia.swarm.oversight import SwarmOversight, inside
from tertulia.swarm.pacing import Paced, Rated, Scheduled
from tertulia.swarm.streams import AnswerStream
from tertulia.swarm.swarm import Swarm
from tertulia.turns import own_turn
from tertulia.values import identifier

Mode = Literal["user", "tool"]
MODES = ("user", "tool")
MAX_ADMITTED = 1_000
"""Messages of a client that wait for its policies."""
MAX_PACED = 100
"""Different delays of `scheduled` and `rate` that a client may have."""
P = TypeVar("P", bound=Paced)
S = TypeVar("S", bound=Send)
_admitting: ContextVar[ClientSession | None] = ContextVar("tertulia_admitting", default=None)
"""The client whose message is being looked at by the calling code."""


class ClientSession:
    """One client in one swarm: ``async with runtime.client_session("client-1", "shop") as client``.

    Get it from the runtime. Its conversation, `session`, is durable: after a restart the same
    client is at the same agent with the same history. The object is what lives of it in this
    process, until it is disposed: by the last one that leaves its ``async with``, by `dispose`, by
    the runtime when it closes, or when nobody has used it for the swarm's `idle_timeout`. After
    that its methods raise ClientDisposed.
    """

    def __init__(
        self,
        swarm: Swarm,
        client_id: str,
        host: Host,
        bus: Bus,
        *,
        forget: Forget | None = None,
        session: Session | None = None,
    ) -> None:
        self.swarm = swarm
        self.client_id = identifier(client_id, "the client id")
        self.host = host
        self.bus = bus
        self.session = session or Session(
            client_id, app_name=swarm.app_name, user_id=client_id, runtime=host
        )
        """The durable half: history, state, audit, memory."""
        self._driver = SwarmDriver(self)
        if session is None:
            self.session._agent = self._driver  # pyright: ignore[reportPrivateUsage]
        self._conversation = self.session._conversation  # pyright: ignore[reportPrivateUsage]
        self.feed = Feed(bus, client_id, swarm.name)
        self.feed.tells_changes = swarm.callbacks.on_agent_changed is not None
        self._conversation.observers += (self.feed.observe,)
        self.guard = Guard(swarm, client_id, self.session, host, bus, self.feed)
        self.life = Life(self, forget)
        self._navigator = Navigator(swarm, self.session)
        self._outlet = Outlet(self)
        self._door = Gate(MAX_ADMITTED)
        self._owned: list[Subscription] = []
        self._paced: dict[tuple[type[Paced], float], Paced] = {}

    def __repr__(self) -> str:
        return f"ClientSession({self.client_id!r}, {self.swarm.name!r})"

    # -- where it is

    @property
    def disposed(self) -> bool:
        """Whether it was disposed."""
        return self.life.disposed is not None

    @property
    def connected(self) -> bool:
        """Whether somebody is connected."""
        return bool(self._outlet.sends)

    @property
    def expected(self) -> bool:
        """Whether a message is looked at by policies, or waits to be executed."""
        return self._door.busy or any(paced.waiting for paced in self._paced.values())

    @property
    def agent(self) -> str:
        """The name of the agent that has the floor."""
        return self._navigator.agent

    @property
    def route(self) -> list[str]:
        """The agents of the running turn, in the order in which they had the floor."""
        own = inside.get()
        if own is not None and own.client is self:
            return list(own.root.route)
        running = next(iter(self.life.running.values()), None)
        return [] if running is None else list(running.route)

    # -- talking

    async def execute(
        self,
        message: str | MessageLike,
        mode: Mode = "user",
        *,
        idempotency_key: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - a deadline of the queue, in seconds
    ) -> Answer:
        """One turn: input policies, the agent, output policies. What the client gets.

        `mode` is ``"user"`` for what the client said, ``"tool"`` for what code says in its name.
        Turns of a client never overlap; one that is asked for inside of the running turn, by a
        tool, is a part of it. `timeout` is how long to wait for the session, in seconds. Raises
        PolicyError, UnusableAnswer, ModelError, ToolError, ClientDisposed, SessionBusy,
        TurnTimeout, …; a turn that was cancelled is an answer of that kind.
        """
        request = self._request(message, mode)
        verdict = await self.admit(request)
        if isinstance(verdict, Answer):
            return verdict
        options = {"metadata": metadata, "idempotency_key": idempotency_key, "timeout": timeout}
        return await self.run(self.plan(request, verdict, options))

    def stream(
        self, message: str | MessageLike, mode: Mode = "user", **options: Any
    ) -> AnswerStream:
        """As `execute`, as it happens: ``async for event in client.stream("…")``.

        Its `answer` is there at the end. Text that the output policies have not accepted yet does
        not leave: without a `chunk_window` an answer comes whole. Options are those of `execute`.
        """
        self.life.check()
        return AnswerStream(self, self._request(message, mode), options)

    async def resume(self) -> Answer:
        """Go on with the turn that waits for an approval, or that a dead process left open."""
        await self.begin()
        return await self.run(self._driver._plan(self.session, None, {}, floor=True))  # pyright: ignore[reportPrivateUsage]

    async def cancel(self) -> bool:
        """Stop the running turn; whoever waits for its answer gets one of the kind ``cancelled``.

        Those that wait behind it go on. What it did in the world stays in the history. False
        where no turn of this object runs.
        """
        self.life.check()
        stopped = self.life.stop_current("the client session cancelled it")
        if stopped is None:
            return False
        if own_turn(self._conversation) is None:
            await stopped.outcome.within(None)
        self.bus.publish(self.feed.event("session", "cancel"))
        return True

    async def emit(self, text: str) -> Answer:
        """Say something to the client unasked: policies first, then the history, then connectors.

        While an answer is awaited, it is that answer: its turn ends with it. Returns what was
        said. Raises PolicyError, and what a connector raises, after the others were told.
        """
        said = _text(text, "the message")
        await self.begin()
        return await self._outlet.emit(said)

    async def notify(self, text: str) -> Answer:
        """Tell whoever is connected something, now; it does not become part of the history.

        Raises NotConnected where nobody is; else as `emit`.
        """
        said = _text(text, "the notice")
        await self.begin()
        return await self._outlet.notify(said)

    def connect(self, connector: Connector) -> Send:
        """Connect somebody who gets what goes out: ``send = client.connect(fn)``.

        `connector` gets an `Outgoing`; it may be async. ``await send("…")`` executes, hands the
        answer to it and returns it; `emit` and `notify` reach it too, `execute` does not.
        ``send.close()`` disconnects it. Raises InvalidInput.
        """
        return self.join(Send(self, connector))

    def disconnect(self, send: Send) -> None:
        """Disconnect a connector; nothing happens if it was not connected."""
        self._outlet.sends.pop(send, None)

    def scheduled(self, delay: float = 1.0) -> Scheduled:
        """Executes what comes in quick succession once: ``await client.scheduled(0.5)("…")``.

        When nothing more came for `delay` seconds, the last message is executed, those before it
        are in the history, and all callers get its answer.
        """
        return self._pace(Scheduled, delay)

    def rate(self, delay: float = 10.0) -> Rated:
        """Executes at most once in `delay` seconds: ``await client.rate(5)("…")``.

        Another call raises RateLimited.
        """
        return self._pace(Rated, delay)

    def listen(
        self, pattern: str, fn: Callable[[BusEvent], Any], *, size: int = 1_000
    ) -> Subscription:
        """Listen to the bus events of this client, until it is disposed."""
        self.life.check()
        subscription = self.bus.listen(self.client_id, pattern, fn, size=size)
        self._owned.append(subscription)
        return subscription

    # -- the history

    async def commit_user_message(self, text: str, mode: Mode = "user") -> Message:
        """Put something that the client said into the history, without an answer."""
        metadata = {"kind": COMMITTED, "mode": _mode(mode)}
        return await self._commit(Message.user(text, metadata=metadata))

    async def commit_assistant_message(self, text: str) -> Message:
        """Put something into the history as if the agent had said it."""
        metadata = {"kind": COMMITTED}
        return await self._commit(Message.assistant(text, agent=self.agent, metadata=metadata))

    async def commit_system_message(self, text: str) -> Message:
        """Put an instruction for the agents into the history."""
        return await self._commit(Message.system(text, metadata={"kind": COMMITTED}))

    async def commit_tool_output(self, call_id: str, content: str) -> Message:
        """Give a tool call that is open its result. Raises InvalidMessage where it is not open."""
        return await self._commit(Message.tool(content, call_id, metadata={"kind": COMMITTED}))

    async def commit_flush(self) -> None:
        """Hide all that was said so far from the agents; the audit keeps it.

        Raises SessionBusy inside of a turn, RetentionRefused.
        """
        await self.begin()
        await hiding.clear(self._conversation, self.session._opening)  # pyright: ignore[reportPrivateUsage]

    # -- navigation

    async def change_agent(self, name: str, reason: str = "") -> str:
        """Give the floor to an agent; from a tool, it goes on with the running turn.

        Raises UnknownName, and NavigationError where it had the floor in this turn already.
        """
        self.swarm.agent(name)
        return await self._moved(self._navigator.go(name, reason))

    async def change_to_default(self, reason: str = "") -> str:
        """Give the floor to the swarm's default agent. As `change_agent`."""
        return await self.change_agent(self.swarm.default, reason)

    async def change_to_previous(self, reason: str = "") -> str:
        """Go back to the agent before; stays where there is none. Raises NavigationError."""
        return await self._moved(self._navigator.back(reason))

    # -- the end

    async def dispose(self) -> None:
        """Let go of all that lives of it in this process; again is no error.

        Turns are cancelled, connectors and owned subscriptions go, ``session.dispose`` is handed
        to the listeners, and `on_dispose` is called, once. The conversation stays.
        """
        await self.life.dispose()

    def __await__(self) -> Generator[Any, Any, ClientSession]:
        yield from self.begin().__await__()
        return self

    async def __aenter__(self) -> Self:
        self.life.hold()
        try:
            await self.begin()
        except BaseException:
            await self._let_go()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._let_go()

    # -- for the parts of it

    @property
    def live(self) -> Live | None:
        """The live session that is connected, if one is."""
        return self._outlet.live

    def join(self, send: S) -> S:
        """Somebody is connected from here on. Raises ClientDisposed."""
        self.life.check()
        self._outlet.connect(send)
        return send

    async def begin(self) -> None:
        """It is about to be used. Raises ClientDisposed."""
        await self.life.begin()

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something as a task of this session."""
        self.life.start(work)

    async def admit(self, request: Message) -> Verdict | Answer:
        """The verdict on what the client said; where it is refused, what the client gets.

        One at a time, so that turns begin in the order in which they were asked for.
        """
        await self.begin()
        if _admitting.get() is self:
            return await self._admit(request)  # a policy or a callback asks
        try:
            async with self._door:
                token = _admitting.set(self)
                try:
                    return await self._admit(request)
                finally:
                    _admitting.reset(token)
        except GateFull:
            raise SessionBusy(
                f"{MAX_ADMITTED} messages of client {self.client_id!r} wait already",
                session_id=self.session.id,
            ) from None

    async def _admit(self, request: Message) -> Verdict | Answer:
        verdict = await self.guard.check("input", request.text, self.agent)
        if not verdict.allowed:
            await self.guard.record(verdict, request.text)
            await self.life.heard()
            return Answer(verdict.message, "ban", agent=self.agent, verdict=verdict)
        if self.swarm.callbacks.on_execute is not None:
            told = {"message": request.text, "mode": (request.metadata or {}).get("mode")}
            await self.life.call("on_execute", self.feed.event("session", "execute", input=told))
        return verdict

    def plan(self, request: Message, verdict: Verdict, options: Mapping[str, Any]) -> Plan:
        """The turn of a request that was parsed and admitted."""
        given = {key: value for key, value in options.items() if value is not None}
        plan = self._driver._plan(self.session, None, given, floor=True, resuming=False)  # pyright: ignore[reportPrivateUsage]
        notes = self.guard.notes(verdict, request.text)
        turn = own_turn(self._conversation)
        if turn is not None:
            for kind, body in notes:
                turn.note(kind, body)
            own = inside.get()
            if own is not None and own.client is self:
                own.root.enter_nested()
            notes = []
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
        for subscription in self._owned:
            subscription.cancel()
        self._paced.clear()
        self._owned.clear()
        self._outlet.sends.clear()
        kept = (each for each in self._conversation.observers if each != self.feed.observe)
        self._conversation.observers = tuple(kept)

    # -- inside

    async def _let_go(self) -> None:
        if self.life.let_go():
            await self.life.dispose()

    def _request(self, message: str | MessageLike, mode: Mode) -> Message:
        given = parse({"role": "user", "content": message} if isinstance(message, str) else message)
        if given.role != "user" or not (given.text.strip() or not isinstance(given.content, str)):
            raise InvalidInput(f"execute takes what a client says, which is not {message!r:.100}")
        metadata = {**(given.metadata or {}), "mode": _mode(mode)}
        return msgspec.structs.replace(given, metadata=metadata)

    async def _commit(self, message: Message) -> Message:
        await self.begin()
        turn = own_turn(self._conversation)
        if turn is not None and message.tool_call_id is not None:
            return await turn.tool_returned(message.tool_call_id, message)
        return await self.session.send_message(message)

    async def _moved(self, moving: Coroutine[Any, Any, str]) -> str:
        try:
            await self.begin()
        except BaseException:
            moving.close()
            raise
        agent = await moving
        self.life.tell_changes()
        await self.life.call_told()
        await self.life.heard()
        return agent

    def _pace(self, kind: type[P], delay: float) -> P:
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


def _mode(mode: Any) -> Mode:
    if mode not in MODES:
        raise InvalidInput(f"mode={mode!r} does not exist; use {' or '.join(MODES)}")
    return mode


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise InvalidInput(f"{what} is {value!r}; it is text that is not empty")
    return value
