"""ClientSession: one client's conversation with a swarm, as long as somebody needs it here."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator, Mapping
from types import TracebackType
from typing import Any, Literal, Self

import msgspec

from tertulia import hiding
from tertulia.bus import Bus, BusEvent, Subscription
from tertulia.bus.base import EVERYONE
from tertulia.errors import InvalidInput
from tertulia.handle import MessageLike
from tertulia.host import Host
from tertulia.messages import Message, parse
from tertulia.session import Session
from tertulia.swarm.answer import COMMITTED, Answer
from tertulia.swarm.connecting import Connector, Send
from tertulia.swarm.desk import Desk
from tertulia.swarm.life import Forget
from tertulia.swarm.oversight import inside
from tertulia.swarm.pacing import Rated, Scheduled
from tertulia.swarm.streams import ClientStream
from tertulia.swarm.swarm import Swarm
from tertulia.turns import own_turn
from tertulia.values import identifier

Mode = Literal["user", "tool"]
MODES = ("user", "tool")


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
        self.client_id = named(client_id)
        self.session = session or Session(
            client_id, app_name=swarm.app_name, user_id=client_id, runtime=host
        )
        """The durable half: history, state, audit, memory."""
        self.bus = bus
        self._desk = Desk(self, self.client_id, swarm, self.session, host, bus, forget)
        if session is None:
            self.session._agent = self._desk.driver  # pyright: ignore[reportPrivateUsage]

    def __repr__(self) -> str:
        return f"ClientSession({self.client_id!r}, {self.swarm.name!r})"

    # -- where it is

    @property
    def disposed(self) -> bool:
        """Whether it was disposed."""
        return self._desk.life.disposed is not None

    @property
    def connected(self) -> bool:
        """Whether somebody is connected."""
        return self._desk.connected

    @property
    def agent(self) -> str:
        """The name of the agent that has the floor."""
        return self._desk.agent

    @property
    def route(self) -> list[str]:
        """The agents of the running turn, in the order in which they had the floor."""
        own = inside.get()
        if own is not None and own.desk is self._desk:
            return list(own.root.route)
        running = next(iter(self._desk.life.running.values()), None)
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
        tool, is a part of it. `timeout` is how long to wait for those before, in seconds. Raises
        PolicyError, UnusableAnswer, ModelError, ToolError, ClientDisposed, SessionBusy,
        TurnTimeout, …; a turn that was cancelled is an answer of that kind.
        """
        request = self._request(message, mode)
        options = {"metadata": metadata, "idempotency_key": idempotency_key, "timeout": timeout}
        return await self._desk.execute(request, options)

    def stream(
        self, message: str | MessageLike, mode: Mode = "user", **options: Any
    ) -> ClientStream:
        """As `execute`, as it happens: ``async for event in client.stream("…")``.

        Its `answer` is there at the end. Text that the output policies have not accepted yet does
        not leave: without a `chunk_window` an answer comes whole. Options are those of `execute`.
        """
        self._desk.life.check()
        return self._streamed(self._request(message, mode), options)

    async def resume(self) -> Answer:
        """Go on with the turn that waits for an approval, or that a dead process left open."""
        desk = self._desk
        answer = await desk.seat.answer(desk.call("resume"))
        if answer is not None:
            return answer
        await desk.begin()
        return await desk.run(desk.driver._plan(self.session, None, {}, floor=True))  # pyright: ignore[reportPrivateUsage]

    async def cancel(self) -> bool:
        """Stop the running turn; whoever waits for its answer gets one of the kind ``cancelled``.

        Those that wait behind it go on. What it did in the world stays in the history. False
        where no turn of this object runs, nor one at the worker that serves the client.
        """
        self._desk.life.check()
        elsewhere = await self._desk.seat.cancel(self._desk.call("cancel"))
        if elsewhere is not None:
            return elsewhere
        stopped = self._desk.life.stop_current("the client session cancelled it")
        if stopped is None:
            return False
        if own_turn(self._desk.conversation) is None:
            await stopped.outcome.within(None)
        self._desk.bus.publish(self._desk.feed.event("session", "cancel"))
        return True

    async def emit(self, text: str) -> Answer:
        """Say something to the client unasked: policies first, then the history, then connectors.

        While an answer is awaited, it is that answer: its turn ends with it. Returns what was
        said. Raises PolicyError, and what a connector raises, after the others were told.
        """
        said = _text(text, "the message")
        answer = await self._desk.seat.answer(self._desk.call("emit", text=said))
        if answer is not None:
            return answer
        await self._desk.begin()
        return await self._desk.outlet.emit(said)

    async def notify(self, text: str) -> Answer:
        """Tell whoever is connected something, now; it does not become part of the history.

        Raises NotConnected where nobody is; else as `emit`.
        """
        said = _text(text, "the notice")
        answer = await self._desk.seat.answer(self._desk.call("notify", text=said))
        if answer is not None:
            return answer
        await self._desk.begin()
        return await self._desk.outlet.notify(said)

    def connect(self, connector: Connector) -> Send:
        """Connect somebody who gets what goes out: ``send = client.connect(fn)``.

        `connector` gets an `Outgoing`; it may be async. ``await send("…")`` executes, hands the
        answer to it and returns it; `emit` and `notify` reach it too, `execute` does not.
        ``send.close()`` disconnects it. Raises InvalidInput.
        """
        return self._desk.join(Send(self._desk, connector))

    def scheduled(self, delay: float = 1.0) -> Scheduled:
        """Executes what comes in quick succession once: ``await client.scheduled(0.5)("…")``.

        When nothing more came for `delay` seconds, the last message is executed, those before it
        are in the history, and all callers get its answer.
        """
        return self._desk.pace(Scheduled, delay)

    def rate(self, delay: float = 10.0) -> Rated:
        """Executes at most once in `delay` seconds: ``await client.rate(5)("…")``.

        Another call raises RateLimited.
        """
        return self._desk.pace(Rated, delay)

    def listen(
        self, pattern: str, fn: Callable[[BusEvent], Any], *, size: int = 1_000
    ) -> Subscription:
        """Listen to the bus events of this client, until it is disposed."""
        self._desk.life.check()
        return self._desk.own(self._desk.bus.listen(self.client_id, pattern, fn, size=size))

    # -- the history

    async def commit_user_message(self, text: str, mode: Mode = "user") -> Message:
        """Put something that the client said into the history, without an answer."""
        said = _text(text, "the message")
        metadata = {"kind": COMMITTED, "mode": _mode(mode)}
        return await self._commit(Message.user(said, metadata=metadata))

    async def commit_assistant_message(self, text: str) -> Message:
        """Put something into the history as if the agent had said it."""
        said = _text(text, "the message")
        metadata = {"kind": COMMITTED}
        return await self._commit(Message.assistant(said, agent=self.agent, metadata=metadata))

    async def commit_system_message(self, text: str) -> Message:
        """Put an instruction for the agents into the history."""
        said = _text(text, "the message")
        return await self._commit(Message.system(said, metadata={"kind": COMMITTED}))

    async def commit_tool_output(self, call_id: str, content: str) -> Message:
        """Give a tool call that is open its result. Raises InvalidMessage where it is not open."""
        return await self._commit(Message.tool(content, call_id, metadata={"kind": COMMITTED}))

    async def commit_flush(self) -> None:
        """Hide all that was said so far from the agents; the audit keeps it.

        Raises SessionBusy inside of a turn, RetentionRefused.
        """
        await self._desk.begin()
        async with self._desk.life.asking():
            await hiding.clear(self._desk.conversation, self.session._opening)  # pyright: ignore[reportPrivateUsage]

    # -- navigation

    async def change_agent(self, name: str, reason: str = "") -> str:
        """Give the floor to an agent; from a tool, it goes on with the running turn.

        Raises UnknownName, and NavigationError where it had the floor in this turn already.
        """
        self._desk.life.check()
        self.swarm.agent(name)
        return await self._moved(self._desk.navigator.go(name, reason))

    async def change_to_default(self, reason: str = "") -> str:
        """Give the floor to the swarm's default agent. As `change_agent`."""
        return await self.change_agent(self.swarm.default, reason)

    async def change_to_previous(self, reason: str = "") -> str:
        """Go back to the agent before; stays where there is none. Raises NavigationError."""
        return await self._moved(self._desk.navigator.back(reason))

    # -- the end

    async def dispose(self) -> None:
        """Let go of all that lives of it in this process; again is no error.

        Turns are cancelled, connectors and owned subscriptions go, ``session.dispose`` is handed
        to the listeners, and `on_dispose` is called, once. The conversation stays.
        """
        await self._desk.life.dispose()

    def __await__(self) -> Generator[Any, Any, ClientSession]:
        yield from self._desk.begin().__await__()
        return self

    async def __aenter__(self) -> Self:
        self._desk.life.hold()
        try:
            await self._desk.begin()
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

    # -- inside

    async def _let_go(self) -> None:
        if self._desk.life.let_go():
            await self._desk.life.dispose()

    def _streamed(self, request: Message, options: Mapping[str, Any]) -> ClientStream:
        return ClientStream(self._desk, request, options)

    def _request(self, message: str | MessageLike, mode: Mode) -> Message:
        given = parse({"role": "user", "content": message} if isinstance(message, str) else message)
        if given.role != "user" or not (given.text.strip() or not isinstance(given.content, str)):
            raise InvalidInput(f"execute takes what a client says, which is not {message!r:.100}")
        kept = {key: value for key, value in (given.metadata or {}).items() if key != "kind"}
        metadata = {**kept, "mode": _mode(mode)}
        return msgspec.structs.replace(given, metadata=metadata)

    async def _commit(self, message: Message) -> Message:
        await self._desk.begin()
        turn = own_turn(self._desk.conversation)
        if turn is not None and message.tool_call_id is not None:
            return await turn.tool_returned(message.tool_call_id, message)
        async with self._desk.life.asking():
            return await self.session.send_message(message)

    async def _moved(self, moving: Coroutine[Any, Any, str]) -> str:
        try:
            await self._desk.begin()
        except BaseException:
            moving.close()
            raise
        async with self._desk.life.asking():
            agent = await moving
        self._desk.life.tell_changes()
        await self._desk.life.call_told()
        await self._desk.life.heard()
        return agent


def named(client_id: Any) -> str:
    """The id of a client. Raises InvalidInput, also for ``*``, which the bus takes as all."""
    if isinstance(client_id, str) and (not client_id.strip() or client_id == EVERYONE):
        raise InvalidInput(
            f"{client_id!r} is no id of a client; give each client an id of its own, which is not "
            "blank and not '*'"
        )
    return identifier(client_id, "the client id")


def _mode(mode: Any) -> Mode:
    if mode not in MODES:
        raise InvalidInput(f"mode={mode!r} does not exist; use {' or '.join(MODES)}")
    return mode


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise InvalidInput(f"{what} is {value!r}; it is text that is not empty")
    return value
