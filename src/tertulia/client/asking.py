"""A question and its answer, as it comes and whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Self

from tertulia.errors import LiveError
from tertulia.wire.events import (
    AgentErrorEvent,
    LiveEvent,
    ResponseChunk,
    ResponseEnd,
    ResponseStart,
)

ANSWER_LIMIT = 8 * 1024 * 1024
"""Characters of an answer; a longer one ends with an error for whoever waits for it."""


class Piece(str):
    """A piece of an answer; `offset` is how many characters of the answer come before it.

    Pieces follow each other, but for one case: where a server was started again and its model
    answers in other words, a piece has an `offset` below what came so far, and replaces all from
    there on.
    """

    __slots__ = ("offset",)

    offset: int

    def __new__(cls, text: str, offset: int) -> Self:
        made = super().__new__(cls, text)
        made.offset = offset
        return made


class Reply(str):
    """The whole text of an answer."""

    __slots__ = ("interrupted", "metadata", "request_id", "seq")

    request_id: str | None
    """The id of the answer."""
    interrupted: bool
    """Whether it was stopped before its end."""
    seq: int | None
    """The position of its message in the log of the session; None where it was not kept."""
    metadata: dict[str, Any]
    """What the server says of it; a `kind` such as ``ban`` where it is no plain answer, and the
    `policy` that refused."""

    def __new__(cls, text: str, end: ResponseEnd) -> Self:
        made = super().__new__(cls, text)
        made.request_id, made.interrupted, made.seq = end.request_id, end.interrupted, end.seq
        made.metadata = dict(end.metadata or {})
        return made


class Answer:
    """What came of the answer to one question, kept by whoever reads the connection.

    Its text is kept whole until the question is forgotten, `ANSWER_LIMIT` characters at most.
    """

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._size = 0
        self._given = 0
        self._waiter: asyncio.Future[None] | None = None
        self.reply: Reply | None = None
        self._error: LiveError | None = None
        self._why = "the answer failed, and is no part of the history"
        self.request_id: str | None = None
        """The id of the answer, once it has begun."""

    @property
    def over(self) -> bool:
        """Whether nothing more comes."""
        return self.reply is not None or self._error is not None

    def take(self, event: LiveEvent) -> None:
        """Something of it came: its start (also where it begins anew), a piece, its end."""
        if self.over:
            return
        if isinstance(event, ResponseStart):
            self._parts, self._size, self._given = [], 0, 0
            self.request_id = event.request_id
        elif isinstance(event, ResponseChunk):
            self._parts.append(event.text)
            self._size += len(event.text)
            if self._size > ANSWER_LIMIT:
                self.fail(LiveError(f"the answer is longer than {ANSWER_LIMIT:,} characters"))
        elif isinstance(event, ResponseEnd) and event.discarded:
            self.fail(LiveError(self._why))
        elif isinstance(event, ResponseEnd):
            self.reply = Reply(self._text(), event)
        elif isinstance(event, AgentErrorEvent):
            self._why = event.message
            if event.severity == "fatal":
                self.fail(LiveError(event.message))
        self._wake()

    def fail(self, error: LiveError) -> None:
        """It will not come."""
        if not self.over:
            self._error = error
            self._wake()

    async def next(self) -> Piece | None:
        """The text that came since, None at the end. Raises what it failed with."""
        while self._given >= self._size and not self.over:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        if self._given < self._size:
            offset, self._given = self._given, self._size
            return Piece(self._text()[offset:], offset)
        if self._error is not None:
            raise self._error
        return None

    async def whole(self) -> Reply:
        """The whole answer, when it is complete. Raises what it failed with."""
        while self.reply is None:
            await self.next()
        return self.reply

    def _text(self) -> str:
        self._parts = ["".join(self._parts)]
        return self._parts[0]

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class AnswerStream(AsyncIterator[Piece]):
    """The pieces of an answer; `reply` is the whole answer after the last of them.

    It asks when the first piece is asked for. Who leaves early leaves the answer: it is not
    interrupted, and its events still come from `LiveClient.events`.
    """

    def __init__(
        self, ask: Callable[[], Awaitable[Answer]], forget: Callable[[Answer], None]
    ) -> None:
        self._ask = ask
        self._forget = forget
        self._answer: Answer | None = None

    @property
    def reply(self) -> Reply | None:
        """The whole answer; None before its end."""
        return self._answer.reply if self._answer is not None else None

    @property
    def request_id(self) -> str | None:
        """The id of the answer; None before it has begun."""
        return self._answer.request_id if self._answer is not None else None

    def __aiter__(self) -> AnswerStream:
        return self

    async def __anext__(self) -> Piece:
        if self._answer is None:
            self._answer = await self._ask()
        piece = await self._answer.next()
        if piece is None:
            raise StopAsyncIteration
        return piece

    async def whole(self) -> Reply:
        """The whole answer, when it is complete. Raises LiveError."""
        if self._answer is None:
            self._answer = await self._ask()
        try:
            return await self._answer.whole()
        finally:
            self._forget(self._answer)

    async def aclose(self) -> None:
        """Let go of the answer."""
        if self._answer is not None:
            self._forget(self._answer)
