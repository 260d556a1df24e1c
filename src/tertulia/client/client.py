"""`LiveClient`: a live session from the client's side, over as many connections as it takes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from typing import Any, Literal, Self, TypeVar

from msgspec.structs import replace

from tertulia.client.asking import Answer, AnswerStream, Reply
from tertulia.client.link import NORMAL, Ending, Link, check_url, open_link
from tertulia.client.merging import Merger
from tertulia.client.outbox import Outbox
from tertulia.client.policy import Reconnect
from tertulia.client.waiting import SIZE, WaitingEvents
from tertulia.clock import Clock, Ids, SystemClock, SystemIds
from tertulia.errors import (
    ConnectionEnded,
    ConnectionLost,
    InvalidInput,
    LiveError,
    UsageError,
)
from tertulia.wire.events import (
    AgentErrorEvent,
    AgentReady,
    LiveEvent,
    LLMRequest,
    SessionContext,
    SystemInit,
    TranscriptUpdate,
    UserInterrupt,
    UserJoined,
)
from tertulia.wire.frames import MAX_FRAME, encode

E = TypeVar("E", bound=LiveEvent)

State = Literal["connecting", "open", "waiting", "closed"]
"""Of a client: "waiting" is between a lost connection and the next, "closed" is for good."""


class LiveClient:
    """A live session, from outside: say something, hear the answer, follow its events.

    ``async with LiveClient("ws://127.0.0.1:8080/ws") as client: print(await client.say("hello"))``

    When the connection is lost it comes back by itself, to the same session and to the position
    it had. `events`, `ask` and `say` give everything once, in order, as if nothing had been.
    What was said and had not arrived is sent again, with the same id.

    ``session_id`` and ``after`` go on with an earlier session after a position, ``variables`` and
    ``caller`` are what a new one begins with, ``token`` is sent as a bearer token. ``reconnect``
    is False, or how often to try; ``size`` is how many events may wait in `events`. ``on_state`` is
    called soon after with each new `state` and with why, as text. A client
    belongs to the event loop it was entered in. Raises InvalidInput.
    """

    def __init__(  # noqa: PLR0913 its settings, all by name
        self,
        url: str,
        *,
        token: str | None = None,
        session_id: str | None = None,
        after: int | None = None,
        variables: dict[str, Any] | None = None,
        caller: dict[str, Any] | None = None,
        reconnect: bool | Reconnect = True,
        size: int = SIZE,
        on_state: Callable[[State, str], None] | None = None,
        clock: Clock | None = None,
        ids: Ids | None = None,
    ) -> None:
        if after is not None and session_id is None:
            raise InvalidInput("after is a position in a session; pass its session_id too")
        self._url = check_url(url)
        self._token = token
        self._session_id = session_id
        self._context = SessionContext(initial_variables=variables or {}, caller=caller)
        self._policy = Reconnect() if reconnect is True else reconnect or None
        self._clock = clock or SystemClock()
        self._ids = ids or SystemIds()
        self._merger = Merger(after)
        self._outbox = Outbox()
        self._waiting = WaitingEvents(size)
        self._on_state = on_state
        self._state: State = "connecting"
        self._sending = asyncio.Lock()
        self._linked = asyncio.Event()
        self._link: Link | None = None
        self._ready: AgentReady | None = None
        self._task: asyncio.Task[None] | None = None
        self._error: LiveError | None = None
        self._attempts = 0
        self._since: float | None = None

    # -- what it is

    @property
    def session_id(self) -> str | None:
        """The id of the session; None where the server gives none, and then nothing resumes."""
        return self._session_id

    @property
    def seq(self) -> int | None:
        """The highest position in the log that came; None before there was any."""
        return self._merger.seq

    @property
    def ready(self) -> AgentReady | None:
        """What the server said when the newest connection opened."""
        return self._ready

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self._error is None and self._linked.is_set()

    @property
    def state(self) -> State:
        """Where it is between connecting and the end; `on_state` is told of each change."""
        return self._state

    @property
    def dropped(self) -> int:
        """How many events were forgotten because nobody read `events` in time."""
        return self._waiting.dropped

    # -- from opening to closing

    async def __aenter__(self) -> Self:
        """Connect; this first time is tried once. Raises LiveError and MissingExtra."""
        if self._task is not None:
            raise UsageError("a LiveClient is entered once; make another one to connect again")
        link = await self._opened()
        self._task = asyncio.create_task(self._run(link), name="tertulia live client")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self, *, code: int = NORMAL) -> None:
        """Leave, and stop coming back. 1000 ends the live session for good, 1001 lets it wait."""
        link, self._link = self._link, None
        self._finish(ConnectionEnded("this client is closed", code=code), ended=True)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if link is not None:
            await link.close(code)

    def abort(self) -> None:
        """Break the connection off without a word, as a lost network does; for tests."""
        if self._link is not None:
            self._link.abort()

    # -- what is sent

    async def send(self, event: E) -> E:
        """Send an event; returns it with its id.

        It waits while there is no connection. An event that is kept in the log is sent again when
        one is lost, unless the server has it; others may be lost with it. Raises InvalidInput for
        what cannot be sent, and LiveError when there is no connection any more.
        """
        return await self._send(event)

    async def join(self) -> None:
        """Say that the user is there: the moment to greet. Raises LiveError."""
        await self.send(UserJoined())

    async def interrupt(self, heard: str | None = None) -> None:
        """Stop the answer that is being given; `heard` is what the user got of it, if known.

        Raises LiveError.
        """
        await self.send(UserInterrupt(heard=heard))

    def ask(self, text: str) -> AnswerStream:
        """Say something, and get the pieces of the answer as they come.

        Asking raises LiveError when the connection is lost for good or the agent fails.
        """
        return AnswerStream(lambda: self._asked(text), self._outbox.forget)

    async def say(self, text: str) -> Reply:
        """Say something, and get the whole answer. Raises LiveError, as `ask` does."""
        return await self.ask(text).whole()

    # -- what comes

    def events(self) -> AsyncIterator[LiveEvent]:
        """Every event that comes, once and in order; for one reader at a time.

        It ends with the session or the client, and raises LiveError when the connection is lost
        for good. An event of a type that is not known here is an `UnknownEvent`. An answer that
        begins anew in other words starts again, with `resumed`. What this client sent itself is
        left out. Raises UsageError while another waits.
        """
        return self._waiting.reader()

    # -- the connection

    async def _opened(self) -> Link:
        """Open a connection, and find out what the server has."""
        first = SystemInit(
            session_context=self._context, session_id=self._session_id, after=self.seq
        )
        link = await open_link(self._url, first, self._token)
        self._ready = link.ready
        self._session_id = link.ready.session_id or self._session_id
        self._merger.connected(link.ready)
        self._outbox.confirm(link.ready.received)
        self._link = link
        self._become("open")
        return link

    async def _run(self, link: Link) -> None:
        """Read one connection after the other, until there is none any more."""
        try:
            while True:
                link = await self._again(await self._read(link))
        except LiveError as error:
            self._finish(error, ended=isinstance(error, ConnectionEnded))
        except Exception as error:
            failed = LiveError(f"the client failed: {type(error).__name__}: {error}")
            failed.__cause__ = error
            self._finish(failed, ended=False)

    async def _read(self, link: Link) -> Ending:
        """Take what comes until the connection is over; meanwhile send again what may be lost."""
        again = self._send_again(link, self._outbox.again())
        sending = asyncio.create_task(again, name="tertulia live client: again")
        try:
            for event in link.early:
                await self._came(event)
            while not isinstance(came := await link.receive(), Ending):
                await self._came(came)
            return came
        finally:
            if self._error is None:
                self._linked.clear()
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    async def _send_again(self, link: Link, events: list[LiveEvent]) -> None:
        for event in events:
            await link.send(event)
        self._linked.set()

    async def _again(self, ending: Ending) -> Link:
        """Come back. Raises LiveError where that makes no sense or did not work out."""
        error = ending.error()
        if error is not None:
            raise error
        if self._policy is None or self._session_id is None:
            raise ConnectionLost(f"the connection was lost: {ending}", code=ending.code)
        last = str(ending)
        self._become("waiting", last)
        since = self._since = self._since or self._clock.monotonic()
        while self._attempts < self._policy.attempts:
            self._attempts += 1
            await asyncio.sleep(self._policy.delay(self._attempts, random.random))
            if self._clock.monotonic() - since > self._policy.within:
                break
            try:
                return await self._opened()
            except ConnectionLost as lost:
                last = str(lost)
        raise ConnectionLost(
            f"the connection was lost, and {self._attempts} attempts did not bring it back: {last}",
            code=ending.code,
        )

    async def _came(self, event: LiveEvent) -> None:
        own = self._outbox.is_own(event)
        self._outbox.confirm(event.id if own and event.seq is not None else None)
        for told in self._merger.take(event):
            if not isinstance(told, AgentErrorEvent):
                self._attempts, self._since = 0, None
            self._outbox.hear(told)
            if not own:
                await self._waiting.put(told)

    # -- sending

    async def _send(self, event: E, answer_to: Answer | None = None) -> E:
        event = replace(event, id=event.id or self._ids.uid().hex())
        if len(encode(event)) > MAX_FRAME:
            raise InvalidInput(f"the event {event.type} has more than {MAX_FRAME:,} bytes")
        async with self._sending:
            await self._connection()
            self._outbox.add(event, answer_to)
            link = self._link
            if link is not None and not await link.send(event) and self._policy is None:
                raise self._error or ConnectionLost("the connection was lost")
        return event

    async def _asked(self, text: str) -> Answer:
        answer = Answer()
        await self._send(TranscriptUpdate(role="user", content=text))
        await self._send(LLMRequest(), answer)
        return answer

    async def _connection(self) -> None:
        """Wait for a connection. Raises LiveError when there will be none."""
        if self._task is None:
            raise UsageError("the client is not connected; write `async with LiveClient(…)`")
        await self._linked.wait()
        if self._error is not None:
            raise self._error

    def _finish(self, error: LiveError, *, ended: bool) -> None:
        """Nothing more comes: tell whoever waits."""
        if self._error is not None:
            return
        self._error = error
        self._become("closed", str(error))
        self._waiting.finish(None if ended else error)
        self._outbox.fail(error)
        self._linked.set()

    def _become(self, state: State, why: str = "") -> None:
        if state != self._state:
            self._state = state
            if self._on_state is not None:
                asyncio.get_running_loop().call_soon(self._on_state, state, why)
