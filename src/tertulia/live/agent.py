"""AgentNode: a node that answers with turns of an agent."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from tertulia import approvals
from tertulia.agents.response import StreamEvent
from tertulia.agents.runner import Runner, answer, go_on
from tertulia.agents.streaming import AsyncStream
from tertulia.errors import AgentError, InvalidInput, TurnInterrupted
from tertulia.live.answers import Answer
from tertulia.live.ends import ENDS, end_of, nature_of, request_id_of
from tertulia.live.inbox import SIZE
from tertulia.live.interrupts import not_answered
from tertulia.live.output import Answering
from tertulia.live.replay import request_in, said_in
from tertulia.live.scribe import Said
from tertulia.messages import Message
from tertulia.wire.events import (
    AgentLog,
    LiveEvent,
    LLMRequest,
    ResponseChunk,
    ResponseEnd,
    ResponseStart,
    TranscriptUpdate,
)


class AgentNode(Answering):
    """Answers with turns of an agent on the conversation of the session, and streams them.

    `agent` is an Agent or an AgentRouter; handoffs stay in force from one answer to the next. A
    turn that waits for an approval is told as an `agent.log` named "approval.requested", and goes
    on with the next request for an answer once a person has decided. `greeting` is said when the
    user joins a conversation that is new. After a restart of the server, an answer that was being
    given goes on. Further options are those of `Agent.run`. Raises InvalidInput.
    """

    def __init__(
        self,
        agent: Runner,
        name: str | None = None,
        *,
        greeting: str | None = None,
        is_interruptible: bool = True,
        inbox: int = SIZE,
        **options: Any,
    ) -> None:
        if not isinstance(agent, Runner):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidInput(f"AgentNode needs an Agent or an AgentRouter, not {agent!r}")
        super().__init__(name or agent.name, is_interruptible, inbox=inbox)
        self.agent = agent
        self.__greeting = greeting
        self.__options = options
        self.__stream: AsyncStream | None = None
        self.__cut: str | None = None
        """What the user got of an answer that was cut."""
        self.__asked: dict[str, Any] | None = None
        """Which request the answer is for, as the client is told."""
        self.__nature: dict[str, Any] = {}
        """What its newest message is, where that is no plain answer."""
        self.__sent = 0
        """Characters of the answer that were sent on."""
        self.__settled = 0
        """How many of them are in the log, in messages with tool calls."""
        self.__waits = False
        """The turn waits for a person to approve a tool call."""
        self.__left: tuple[LLMRequest, AsyncStream, StreamEvent] | None = None

    async def start(self) -> None:
        """Take up the turn that a process left open which died."""
        if self.__greeting is not None:
            self.session.greeting = self.__greeting
        conversation = self.session.conversation
        row = await conversation._row()  # pyright: ignore[reportPrivateUsage]
        if not self.session.resumed or row is None or row.open_turn is None or row.suspended:
            return
        if await approvals.is_running(conversation._conversation, row):  # pyright: ignore[reportPrivateUsage]
            return  # somebody else answers, as over HTTP
        stream = go_on(self.agent, conversation)
        try:
            first = await anext(stream)
        except AgentError as error:
            await self._failed(error, "start")
            return
        request = LLMRequest()
        self.__left = request, stream, first
        self._inbox.push(request)

    def before_cut(self, given: Answer | None) -> None:
        """The history keeps what the user got of the answer."""
        if self.__stream is None:
            return
        self.__cut = ""
        if given is not None:
            given.settled = self.__settled
            self.__cut = given.got()
        self.__stream.keep(self.__cut)

    async def process_event(self, event: LiveEvent) -> None:
        """As every node that answers; first, go on with what was left."""
        left = self.__left
        if left is not None and event is left[0]:
            self.__left = None
            self._answering = True
            try:
                await self._give(left[1], left[2])
            finally:
                self._answering = False
            return
        await super().process_event(event)

    async def _give_answer(self, request: LLMRequest) -> None:
        await self._take_in(request)
        conversation = self.session.conversation
        row = await conversation._row()  # pyright: ignore[reportPrivateUsage]
        if row is not None and row.suspended:
            await self._give(go_on(self.agent, conversation), request=request)
            return
        await self.session.scribe.settle()
        known: dict[str, Any] = self.__options.get("metadata") or {}
        metadata = {**known, "live": {"request": request.id}}
        options = {**self.__options, "metadata": metadata}
        await self._give(answer(self.agent, conversation, **options), request=request)

    async def _take_in(self, request: LLMRequest) -> None:
        """What the user said, where the client tells it with its request only."""
        told = [m for m in request.messages or () if m.get("role") == "user"]
        said = told[-1].get("content") if told else None
        if not isinstance(said, str) or not said.strip():
            return
        newest = await self.session.conversation.history(limit=1)
        if not newest or newest[-1].role != "user" or newest[-1].text != said:
            event = TranscriptUpdate(role="user", content=said)
            self.session.stamp(event, "in")
            message = Message.user(said, metadata={"live": {"id": event.id}})
            await self.session.scribe.write([Said(event, message)], "in")

    async def _give(
        self,
        stream: AsyncStream,
        first: StreamEvent | None = None,
        request: LLMRequest | None = None,
    ) -> None:
        """Send a turn to the client as it happens."""
        self.__stream = stream
        asked = None if request is None else request.id
        if asked is None and first is not None:
            asked = await request_in(self.session.conversation, first.turn or 0)
        self.__asked = None if asked is None else {"request": asked}
        turn: int | None = None
        failed: AgentError | None = None
        try:
            async with stream:
                if first is not None:
                    turn = first.turn
                    await self._begin(turn)
                    await self._say_again(turn or 0)
                async for event in stream:
                    if event.type == "turn_started":
                        turn = event.turn
                        await self._begin(turn)
                    else:
                        await self._send(event)
        except TurnInterrupted:
            pass  # somebody asked the turn to stop; how it ended is in the log
        except AgentError as error:
            failed = error
        finally:
            self.__stream = None
            await asyncio.shield(self._ended(turn, request, failed))

    async def _ended(
        self, turn: int | None, request: LLMRequest | None, failed: AgentError | None
    ) -> None:
        """Tell what went wrong, and that the answer has ended."""
        if failed is not None:
            await self._failed(failed, "answer", request_id=self._request_id or _id(request))
        if turn is not None:
            await self._end(turn)
        elif request is not None:
            not_answered(self.session, request)

    async def _begin(self, turn: int | None) -> None:
        self._request_id = self._newest = request_id_of(turn or 0)
        self.__sent = self.__settled = 0
        self.__nature = {}
        await self.send_event(ResponseStart(request_id=self._request_id, metadata=self.__asked))

    async def _say_again(self, turn: int) -> None:
        """What the turn had said already when the process died that began it."""
        for text in await said_in(self.session.conversation, turn):
            self.__sent += len(text)
            await self.send_event(ResponseChunk(text=text, request_id=self._request_id))
        self.__settled = self.__sent

    async def _send(self, event: StreamEvent) -> None:
        if event.type == "text_delta" and event.text:
            self.__sent += len(event.text)
            await self.send_event(ResponseChunk(text=event.text, request_id=self._request_id))
        elif event.type == "turn_suspended" and event.response is not None:
            self.__waits = True
            calls = [msgspec.to_builtins(approval) for approval in event.response.pending]
            await self.send_event(AgentLog(name="approval.requested", payload={"calls": calls}))
        elif event.type == "message" and event.message is not None:
            self.__nature = nature_of(event.message.metadata)
            if event.message.tool_calls:
                self.__settled = self.__sent

    async def _end(self, turn: int) -> None:
        """The end of the answer."""
        self._request_id = None
        cut, self.__cut = self.__cut, None
        ended = await end_of(self.session.conversation, turn)
        waits, self.__waits = self.__waits, False
        interrupted, discarded = (not waits, False) if ended is None else ENDS[ended.type]
        nature = {} if discarded else self.__nature
        await self.send_event(
            ResponseEnd(
                request_id=request_id_of(turn),
                interrupted=cut is not None or interrupted,
                discarded=discarded,
                metadata={**(self.__asked or {}), **nature} or None,
            )
        )
        if cut is not None and not interrupted and not waits:
            await self._correct(cut)

    async def _correct(self, cut: str) -> None:
        """The turn was complete when it was cut: the history keeps what the user got of it."""
        told = TranscriptUpdate(role="assistant", content=cut)
        self.session.stamp(told, "in")
        await self.session.scribe.write([Said(told, heard=cut)], "in")


def _id(request: LLMRequest | None) -> str | None:
    return None if request is None else request.id
