"""One turn of an agent: ask the model, run the tools that it calls, until it answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, aclosing
from inspect import isawaitable
from time import monotonic
from typing import Any, cast

import msgspec

from tertulia import admission, events
from tertulia.agents.context import RunContext
from tertulia.agents.exchange import Exchange
from tertulia.agents.protocol import (
    Model,
    ModelRequest,
    TextDelta,
    ToolCallMade,
    UsageReport,
)
from tertulia.agents.response import Response, StreamEvent, Usage
from tertulia.agents.rounds import ToolRound, distinct
from tertulia.agents.tools import AnyTool
from tertulia.drafting import Draft
from tertulia.errors import ModelError, TurnInterrupted
from tertulia.messages import Message
from tertulia.session import Session
from tertulia.turns import LISTEN_SECONDS, Asked, Turn

MAX_ROUNDS = 10
"""Rounds with tools in one turn; then the model is asked once more, without them."""

Instructions = str | Callable[[RunContext], str | Awaitable[str]] | None


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A turn as it was asked for."""

    session: Session
    passing: bool
    """The session is for this turn only, and removed after it."""
    asked: Asked
    model: Model
    instructions: Instructions
    tools: dict[str, AnyTool]
    temperature: float | None
    max_tokens: int | None

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What the caller passed."""
        return self.asked.metadata or {}


class Answer(msgspec.Struct):
    """What a model said to one request."""

    text: list[str]
    calls: list[ToolCallMade]
    usage: UsageReport = UsageReport()
    reason: str = "stop"

    def message(self, agent: str | None) -> Message:
        """As the message that is stored."""
        unusual = self.reason not in ("stop", "tool_calls")
        return Message.assistant(
            "".join(self.text),
            tool_calls=[made.call for made in self.calls] or None,
            agent=agent,
            metadata={"finish_reason": self.reason} if unusual else None,
        )


async def begin(plan: Plan) -> Turn:
    """Take hold of the session, before anything is spent. Raises as `Session.turn`."""
    session = plan.session
    turn = await admission.begin(
        session._conversation,  # pyright: ignore[reportPrivateUsage]
        session._opening,  # pyright: ignore[reportPrivateUsage]
        plan.asked,
    )
    session._opened()  # pyright: ignore[reportPrivateUsage]
    return turn


async def drive(turn: Turn, plan: Plan, exchange: Exchange) -> None:
    """Run a turn that has begun to its end. Nothing is raised: the exchange gets the outcome.

    It must be the whole of its task, which is cancelled when the turn has to stop.
    """
    exchange.attach(turn)
    turn.enter_context()
    watcher = asyncio.ensure_future(_watch(turn, asyncio.current_task()))
    try:
        response = await _Loop(turn, plan, exchange, watcher).run()
    except (asyncio.CancelledError, TurnInterrupted):
        reason = turn.stop.result() if turn.stop.done else "cancelled"
        closing = turn.interrupt(reason, exchange.cut() or None)
        await _end(exchange, closing, TurnInterrupted(reason, session_id=plan.session.id))
    except BaseException as error:
        exchange.cut()
        await _end(exchange, turn.fail(error), error)
    else:
        exchange.finish(response)
    finally:
        watcher.cancel()
        if plan.passing:
            await asyncio.shield(plan.session.delete())


async def _end(exchange: Exchange, closing: Awaitable[None], error: BaseException) -> None:
    """Close a turn that did not complete; a second cancellation does not leave it open."""
    try:
        await asyncio.shield(closing)
    except BaseException as second:
        error.add_note(f"the turn could not be closed: {second!r}")
    exchange.fail(error)


async def _watch(turn: Turn, task: asyncio.Task[Any] | None) -> None:
    """Cancel the task of a turn when somebody asks the turn to stop."""
    while not await turn.stop.within(LISTEN_SECONDS):
        await turn.listen()
    if task is not None:
        task.cancel()


class _Loop:
    """The state of one turn while it runs."""

    def __init__(
        self, turn: Turn, plan: Plan, exchange: Exchange, watcher: asyncio.Future[None]
    ) -> None:
        self._turn = turn
        self._plan = plan
        self._exchange = exchange
        self._watcher = watcher
        self._context = RunContext(
            session=plan.session, turn=turn, agent=plan.asked.agent, metadata=plan.metadata
        )
        self._messages: list[Message] = []
        self._usage = Usage()
        self._began = monotonic()

    async def run(self) -> Response:
        """The answer; the turn is complete then."""
        self._exchange.offer(StreamEvent(type="turn_started", turn=self._turn.number))
        number = 0
        while True:
            may_call = number < MAX_ROUNDS
            answer = await self._ask(await self._request(may_call))
            self._usage = self._usage.plus(answer.usage.input_tokens, answer.usage.output_tokens)
            await self._exchange.drained()
            if not answer.calls:
                return await self._complete(answer)
            if not may_call:
                raise ModelError(
                    f"{self._plan.model.name} still calls tools after {MAX_ROUNDS} rounds"
                )
            await self._call_tools(answer)
            number += 1

    async def _request(self, may_call: bool) -> ModelRequest:
        """What the model is to see: the whole conversation, with the question of this turn."""
        plan = self._plan
        history = await plan.session.history()
        self._messages = [m for m in history if (m.seq or 0) >= self._turn.number]
        said = (self._turn.row.details.system, await self._instructions())
        return ModelRequest(
            system="\n\n".join(text for text in said if text) or None,
            messages=history,
            tools=[tool.spec for tool in plan.tools.values()],
            may_call=may_call,
            temperature=plan.temperature,
            max_tokens=plan.max_tokens,
        )

    async def _instructions(self) -> str | None:
        given = self._plan.instructions
        if given is None or isinstance(given, str):
            return given
        made = given(self._context)
        return await made if isawaitable(made) else made

    async def _ask(self, request: ModelRequest) -> Answer:
        answer = Answer([], [])
        stream = self._plan.model.stream(request)
        async with AsyncExitStack() as stack:
            if hasattr(stream, "aclose"):
                await stack.enter_async_context(aclosing(cast("Any", stream)))
            async for event in stream:
                if isinstance(event, TextDelta):
                    answer.text.append(event.text)
                    await self._exchange.put(StreamEvent(type="text_delta", text=event.text))
                elif isinstance(event, ToolCallMade):
                    answer.calls.append(event)
                elif isinstance(event, UsageReport):
                    answer.usage = event
                else:
                    answer.reason = event.reason
        answer.calls = distinct(answer.calls)
        return answer

    async def _call_tools(self, answer: Answer) -> None:
        """One round: what is called is in the log before it runs, its result after."""
        turn, exchange = self._turn, self._exchange
        work = ToolRound(turn, self._plan.tools, self._context, answer.calls)

        async def build(draft: Draft) -> Message:
            message = draft.message(answer.message(turn.asked.agent))
            self._note_usage(draft, answer)
            work.note(draft)
            return message

        message = await asyncio.shield(turn.append(build))
        exchange.settled()
        await exchange.put(StreamEvent(type="message", message=message))
        for made in answer.calls:
            await exchange.put(StreamEvent(type="tool_call", call=made.call))
        await work.run(self._tell_result)

    async def _tell_result(self, message: Message) -> None:
        await self._exchange.put(StreamEvent(type="tool_result", message=message))

    async def _complete(self, answer: Answer) -> Response:
        """The last message, its usage and the end of the turn: one commit."""
        turn, exchange = self._turn, self._exchange
        turn.check()
        self._watcher.cancel()
        made: list[Response] = []

        async def first(draft: Draft) -> None:
            message = draft.message(answer.message(turn.asked.agent))
            self._note_usage(draft, answer)
            made[:] = [self._response(message)]
            turn.result = made[0]

        await turn.complete(first=first)
        response = made[0]
        exchange.offer(StreamEvent(type="message", message=response.messages[-1]))
        exchange.offer(StreamEvent(type="usage", usage=response.usage))
        exchange.offer(StreamEvent(type="turn_completed", response=response, turn=turn.number))
        return response

    def _response(self, last: Message) -> Response:
        messages = [*self._messages, last]
        return Response(
            text=last.text,
            messages=messages,
            tool_calls=[call for message in messages for call in message.tool_calls or ()],
            usage=self._usage,
            turn=self._turn.number,
            latency=monotonic() - self._began,
        )

    def _note_usage(self, draft: Draft, answer: Answer) -> None:
        """What one request consumed, as an event beside its message."""
        usage = answer.usage
        body: dict[str, Any] = {
            "agent": self._turn.asked.agent,
            "model": self._plan.model.name,
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
        }
        draft.add(events.USAGE, {name: item for name, item in body.items() if item is not None})
