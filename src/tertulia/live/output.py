"""Nodes that answer: what they share, and OutputNode, which answers by your own code."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, cast

from tertulia.errors import InvalidInput
from tertulia.live.answers import Answer
from tertulia.live.ends import answer_id
from tertulia.live.inbox import SIZE, Overflow
from tertulia.live.interrupts import cut, not_answered
from tertulia.live.nodes import Node
from tertulia.wire.events import (
    AgentSpeak,
    LiveEvent,
    LLMRequest,
    ResponseChunk,
    ResponseEnd,
    ResponseStart,
    UserInterrupt,
)


class Answering(Node):
    """What nodes that answer share: one answer at a time, at each `system.llm.request`.

    Every other event goes to `on_event` and then on to the children.
    """

    def __init__(
        self,
        name: str | None = None,
        is_interruptible: bool = True,
        *,
        inbox: int = SIZE,
        overflow: Overflow = "wait",
    ) -> None:
        super().__init__(name, is_interruptible, inbox=inbox, overflow=overflow)
        self._request_id: str | None = None
        self._answering = False
        self._newest: str | None = None
        """The newest answer, also when it was given."""

    async def process_event(self, event: LiveEvent) -> None:
        """Answer a request; hand everything else to `on_event`, and send it on."""
        if isinstance(event, LLMRequest):
            await self._answer_unless_over(event)
        else:
            await self.on_event(event)
        await self.send_event(event)

    async def on_event(self, event: LiveEvent) -> None:
        """Called with every event but requests for an answer."""

    async def speak(self, text: str) -> None:
        """Say a text, whole; it becomes a message of the conversation."""
        await self.send_event(AgentSpeak(text=text))

    def interrupt(self, event: UserInterrupt) -> list[LLMRequest]:
        """Cut the answer that is being given, and those that were asked for and wait."""
        newest, answers = self._newest, self.session.answers
        if self.is_interruptible and newest is not None and answers.may_be_cut(newest):
            given = answers.find(newest)
            if given is not None and event.heard is not None:
                given.heard = event.heard
            if self._request_id is not None:
                self.before_cut(given)
            cut(self.session, newest, event.heard)
        pulled = super().interrupt(event)
        for request in pulled:
            not_answered(self.session, request)
        return pulled

    def before_cut(self, given: Answer | None) -> None:
        """Called when an answer is about to be cut, before anything is cancelled.

        `given` is what has come of it to the sink; None where nothing has.
        """

    async def finish(self) -> None:
        """Stop to work; of what is being answered, the history keeps what the client got."""
        if self._request_id is not None:
            self.before_cut(self.session.answers.find(self._request_id))
        await super().finish()

    def _is_working(self) -> bool:
        return super()._is_working() and self._answering

    async def _answer_unless_over(self, request: LLMRequest) -> None:
        if self.session.handed_off:
            not_answered(self.session, request)
            return
        await self._answer(request)

    async def _answer(self, request: LLMRequest) -> None:
        """Give one answer, which an interruption can stop."""
        self._answering = True
        try:
            await self._give_answer(request)
        finally:
            self._answering = False

    @abstractmethod
    async def _give_answer(self, request: LLMRequest) -> None:
        """Give one answer."""


class OutputNode(Answering):
    """Answers with what your `generate_response` yields.

    Its pieces are streamed to the client, and the whole becomes a message of the conversation;
    of an answer that was interrupted, what the client got.
    """

    @abstractmethod
    def generate_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[str]:
        """Yield the pieces of an answer: ``async def generate_response(self, messages)``.

        `messages` are those of the conversation, a list of `Message`; it may be written without.
        """
        ...

    async def _give_answer(self, request: LLMRequest) -> None:
        request_id = self._request_id = self._newest = answer_id(request)
        asked = {"request": request.id}
        await self.send_event(ResponseStart(request_id=request_id, metadata=asked))
        interrupted = True
        try:
            async with aclosing(await self._pieces(request)) as pieces:
                async for piece in pieces:
                    if not isinstance(piece, str):  # pyright: ignore[reportUnnecessaryIsInstance]
                        raise InvalidInput(
                            f"generate_response yielded {piece!r}; it yields pieces of text"
                        )
                    if piece:
                        await self.send_event(ResponseChunk(text=piece, request_id=request_id))
            interrupted = False
        except Exception as error:
            await self._failed(error, "generate_response", request_id=request_id)
        finally:
            self._request_id = None
            await self.send_event(
                ResponseEnd(request_id=request_id, interrupted=interrupted, metadata=asked)
            )

    async def _pieces(self, request: LLMRequest) -> Any:
        generate = cast("Any", self.generate_response)
        if not inspect.signature(generate).parameters:
            return generate()
        return generate(await self.session.conversation.history())
