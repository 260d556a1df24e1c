"""Connectors: whoever gets what goes out to a client."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Iterable
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, Protocol

from tertulia.agents.context import RunContext
from tertulia.agents.oversight import Say
from tertulia.errors import InvalidInput
from tertulia.handle import MessageLike
from tertulia.messages import Message
from tertulia.swarm.answer import Answer, Outgoing

if TYPE_CHECKING:
    from tertulia.swarm.desk import Desk
    from tertulia.swarm.oversight import SwarmOversight

Connector = Callable[[Outgoing], "Awaitable[Any] | Any"]


class Send:
    """What `connect` gives: ``answer = await send("…")``. Awaiting it alone gives it again."""

    def __init__(self, desk: Desk, connector: Connector) -> None:
        if not callable(connector):
            raise InvalidInput(f"{connector!r} cannot be called, so it is no connector")
        self._desk = desk
        self._connector = connector
        self._closed = False

    async def __call__(self, message: str | MessageLike, **options: Any) -> Answer:
        """Execute a message, hand the answer to the connector, and return it.

        Options are those of `ClientSession.execute`. Raises what that and the connector raise.
        """
        return await self.hand(await self._desk.client.execute(message, **options))

    def scheduled(self, delay: float = 1.0) -> Callable[..., Awaitable[Answer]]:
        """As `ClientSession.scheduled`; the connector gets the answer once."""
        return self._desk.client.scheduled(delay).through(self)

    def rate(self, delay: float = 10.0) -> Callable[..., Awaitable[Answer]]:
        """As `ClientSession.rate`; the connector gets the answers."""
        return self._desk.client.rate(delay).through(self)

    def close(self) -> None:
        """Disconnect; again is no error."""
        self._closed = True
        self._desk.disconnect(self)

    def __await__(self) -> Generator[Any, Any, Send]:
        yield from self._desk.begin().__await__()
        return self

    async def hand(self, answer: Answer) -> Answer:
        """Hand an answer to the connector; what was emitted it has already."""
        if answer and not (answer.emitted or self._closed):
            await self.give(Outgoing(str(answer), answer.agent, self._desk.client_id))
        return answer

    async def give(self, outgoing: Outgoing) -> None:
        """Call the connector."""
        made = self._connector(outgoing)
        if isawaitable(made):
            await made


class Far(Send):
    """The connection of another worker, for all who are connected there."""

    def __init__(self, desk: Desk, connector: Connector, hang_up: Callable[[], None]) -> None:
        super().__init__(desk, connector)
        self._hang_up = hang_up

    def leave(self) -> None:
        """Let it look again for where the client is served; from any thread."""
        self.close()
        self._hang_up()


class Live(Protocol):
    """A live session, as the client that it is of needs it."""

    async def tell(self, outgoing: Outgoing) -> None:
        """Tell who is there something that is no part of the conversation."""

    async def say(self, message: Message) -> None:
        """Say what was emitted, and so put it into the history, where it is heard."""

    async def examine(self, context: RunContext, oversight: SwarmOversight) -> Say | None:
        """A turn begins: ask the policies about what was said before it."""


class Voice(Send):
    """The connection of a live session, which is where the conversation is heard."""

    def __init__(self, desk: Desk, live: Live) -> None:
        super().__init__(desk, live.tell)
        self.live = live


async def deliver(sends: Iterable[Send], outgoing: Outgoing) -> None:
    """Tell every connector; raises what the first one raised, once all were told."""
    failed: Exception | None = None
    for send in sends:
        try:
            await send.give(outgoing)
        except Exception as error:
            failed = failed or error
    if failed is not None:
        raise failed
