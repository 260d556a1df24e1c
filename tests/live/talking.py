"""A live session without a server: its client reads a link as the server's writer does."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any, TypeVar

from tertulia import Runtime
from tertulia.live import AgentSession, Node, OutputNode, Settings
from tertulia.live.link import Link
from tertulia.wire.events import (
    AgentReady,
    LiveEvent,
    LLMRequest,
    ResponseChunk,
    ResponseEnd,
    ResponseStart,
    SystemInit,
    TranscriptUpdate,
)

E = TypeVar("E", bound=LiveEvent)


class Card(LiveEvent, type="test.card", kept=True):
    """An event of an application that is in the log."""

    title: str


class Tick(LiveEvent, type="test.tick"):
    """An event of an application that is not."""

    number: int = 0


async def eventually(check: Callable[[], Any]) -> Any:
    """Wait until something is so; the time limit of the test ends the wait."""
    while not (found := check()):
        await asyncio.sleep(0.001)
    return found


async def settled(session: AgentSession) -> None:
    """Wait until nothing moves in a session any more."""
    calm = 0
    while calm < 30:
        await asyncio.sleep(0)
        calm = 0 if _moves(session) else calm + 1


def _moves(session: AgentSession) -> bool:
    nodes: Any = session.plan
    return bool(
        session.inlet._busy
        or session.sink._busy
        or any(node._current is not None or len(node._inbox) for node in nodes)
        or any(hook._busy or len(hook._inbox) for hook in session._hooks._hooks)
    )


class Client:
    """What one connection gets, and by `reading` when; `text` is of each answer."""

    def __init__(self, session: AgentSession) -> None:
        self.session = session
        self.link = Link()
        self.got: list[LiveEvent] = []
        self._task: asyncio.Task[None] | None = None

    async def attach(self, after: int | None = None, *, again: bool = False) -> Client:
        """Be the client from here on."""
        await self.session.attach(self.link, after, again=again)
        return self

    def read(self) -> Client:
        """Take everything from here on, as it comes."""
        self._task = asyncio.create_task(self._read())
        return self

    def take(self, most: int = 1_000_000) -> list[LiveEvent]:
        """Take what waits."""
        taken: list[LiveEvent] = []
        while len(taken) < most and (event := self.link.next()) is not None:
            taken.append(event)
            self.session.answers.delivered(event)
        self.got.extend(taken)
        return taken

    async def until(self, kind: type[E], count: int = 1) -> E:
        """The event that is the so-manieth of its class, once it is there."""
        await eventually(lambda: len(self.of(kind)) >= count)
        return self.of(kind)[count - 1]

    def of(self, kind: type[E]) -> list[E]:
        """What came of a class."""
        return [event for event in self.got if isinstance(event, kind)]

    @property
    def types(self) -> list[str]:
        """The types of all that came."""
        return [event.type for event in self.got]

    def text(self, request_id: str | None = None) -> str:
        """The text of an answer, by its offsets; of the newest without an id."""
        chunks = self.of(ResponseChunk)
        wanted = request_id or (chunks[-1].request_id if chunks else None)
        text = ""
        for event in self.got:
            if isinstance(event, ResponseStart) and event.request_id == wanted:
                text = ""
            elif isinstance(event, ResponseChunk) and event.request_id == wanted:
                assert event.offset == len(text), (event, text)
                text += event.text
        return text

    def lose(self, *, for_good: bool = False) -> None:
        """The connection is gone."""
        if self._task is not None:
            self._task.cancel()
        self.link.close(1000, "gone")
        self.session.detach(self.link, "lost", for_good=for_good)

    async def says(self, content: str, event_id: str | None = None) -> None:
        """Say something as a user, and ask for an answer."""
        await self.session.receive(TranscriptUpdate(role="user", content=content, id=event_id))
        await self.session.receive(LLMRequest())

    async def _read(self) -> None:
        while await self.link.wait():
            self.take(1)


class Merged:
    """What a client makes of all its connections."""

    def __init__(self) -> None:
        self.after: int | None = None
        self.texts: dict[str, str] = {}
        self.ended: dict[str, str] = {}
        self.seqs: list[int] = []
        self.others: list[LiveEvent] = []

    def take(self, events: Iterable[LiveEvent], *, first: bool = True) -> None:
        """What came on one connection, from its `first` event on or from a later one."""
        for number, event in enumerate(events):
            ready = first and number == 0
            assert isinstance(event, AgentReady) == ready, event
            if ready:
                self.after = event.seq if self.after is None else self.after
                continue
            if event.seq is not None:
                assert not self.seqs or event.seq > self.seqs[-1], (event, self.seqs)
                self.seqs.append(event.seq)
                self.after = event.seq
            self._take(event)

    def _take(self, event: LiveEvent) -> None:
        if isinstance(event, ResponseStart):
            assert event.request_id not in self.ended, event
            self.texts[event.request_id or ""] = ""
        elif isinstance(event, ResponseChunk):
            so_far = self.texts[event.request_id or ""]
            assert event.offset == len(so_far), (event, so_far)
            self.texts[event.request_id or ""] = so_far + event.text
        elif isinstance(event, ResponseEnd):
            self.ended[event.request_id or ""] = self.texts.pop(event.request_id or "")
        else:
            self.others.append(event)


def chained(session: AgentSession, *nodes: Node) -> None:
    """Add nodes, each the child of the one before."""
    for node in nodes:
        session.add_node(node)
    for parent, child in pairwise(nodes):
        session.add_edge(parent, child)


@asynccontextmanager
async def live(
    *nodes: Node,
    runtime: Runtime | None = None,
    session_id: str = "s",
    build: Callable[[AgentSession], None] | None = None,
    reading: bool = True,
    start: bool = True,
    ends_in: float = 30,
    **settings: Any,
) -> AsyncGenerator[tuple[AgentSession, Client]]:
    """A session with a chain of nodes and a client, to its end.

    Raises TimeoutError for a session that does not end.
    """
    own = runtime is None
    runtime = runtime or Runtime("memory:")
    conversation = runtime.session(session_id)
    resumed = await conversation._row() is not None
    session = AgentSession(
        conversation, SystemInit(), settings=Settings(**settings), resumed=resumed
    )
    await session.open()
    client = await Client(session).attach()
    chained(session, *nodes)
    if build is not None:
        build(session)
    try:
        if start:
            await session.start()
        if reading:
            client.read()
        yield session, client
    finally:
        session.finish("the test is over")
        async with asyncio.timeout(ends_in):
            await session.wait_until_complete()
        with contextlib.suppress(asyncio.CancelledError):
            if client._task is not None:
                client._task.cancel()
                await client._task
        if own:
            await runtime.close()


class Recorder(Node):
    """Keeps what it got, and sends it on."""

    def __init__(self, name: str | None = None, **options: Any) -> None:
        super().__init__(name, **options)
        self.got: list[LiveEvent] = []

    async def process_event(self, event: LiveEvent) -> None:
        self.got.append(event)
        await self.send_event(event)

    def of(self, kind: type[E]) -> list[E]:
        """What came of a class."""
        return [event for event in self.got if isinstance(event, kind)]


class Gate(Recorder):
    """Sends nothing on until it is opened."""

    def __init__(self, name: str | None = None, **options: Any) -> None:
        super().__init__(name, **options)
        self.opened = asyncio.Event()
        self.reached = asyncio.Event()

    async def process_event(self, event: LiveEvent) -> None:
        self.reached.set()
        await self.opened.wait()
        await super().process_event(event)


class Says(OutputNode):
    """Answers with pieces; at a number it waits until that `step` is let go."""

    def __init__(self, *pieces: str | asyncio.Event, name: str = "says", **options: Any) -> None:
        super().__init__(name, **options)
        self.pieces = pieces
        self.waiting = asyncio.Event()
        self.requests = 0

    async def generate_response(self) -> AsyncIterator[str]:
        self.requests += 1
        for piece in self.pieces:
            if isinstance(piece, str):
                yield piece
            else:
                self.waiting.set()
                await piece.wait()


def said(session: AgentSession) -> list[tuple[str, str]]:
    """Role and text of the messages of the conversation."""
    return [(message.role, message.text) for message in session.conversation.messages]


async def history(session: AgentSession) -> list[tuple[str, str]]:
    """Role and text of the messages of the conversation, from the store."""
    return [(each.role, each.text) for each in await session.conversation.history()]


def ends(client: Client) -> list[tuple[str | None, bool]]:
    """The ids of the answers that ended, and whether they were interrupted."""
    return [(event.request_id, event.interrupted) for event in client.of(ResponseEnd)]
