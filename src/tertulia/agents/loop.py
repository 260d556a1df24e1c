"""One turn of an agent: ask the model, run the tools that it calls, until it answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from contextvars import ContextVar
from functools import partial
from time import monotonic
from typing import Any

import msgspec

from tertulia import admission, events, resuming, telemetry
from tertulia.agents.asking import Answer, Asking, BrokenAnswer
from tertulia.agents.context import RunContext
from tertulia.agents.exchange import Exchange, cancel_soon
from tertulia.agents.response import Response, StreamEvent
from tertulia.agents.rounds import ToolRound
from tertulia.agents.speakers import Cast, Speaker
from tertulia.approvals import pending
from tertulia.drafting import Draft
from tertulia.errors import ModelError, RoutingError, TurnInterrupted, UsageError
from tertulia.messages import Message
from tertulia.resuming import OpenCall
from tertulia.session import Session
from tertulia.turns import LISTEN_SECONDS, Asked, Turn, own_turn
from tertulia.usage import sum_of

MAX_ROUNDS = 10
"""Rounds with tools in one turn; then the model is asked once more, without them."""


MAX_DEPTH = 8
"""Agents inside of tools of agents, on one session."""

_depth: ContextVar[int] = ContextVar("tertulia_depth", default=0)


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A turn as it was asked for."""

    session: Session
    passing: bool
    """The session is for this turn only, and removed after it."""
    asked: Asked
    cast: Cast
    resuming: bool = False
    """It goes on with the turn that is open, and `asked` only says how long to wait."""


class Begun(msgspec.Struct, frozen=True):
    """A turn under our hold, with the calls that are open in it."""

    turn: Turn
    calls: list[OpenCall] = []
    joined: bool = False
    """It is the turn of the calling code, which closes it."""


async def begin(plan: Plan) -> Begun:
    """Take hold of the session, before anything is spent; inside a turn of its own, join that.

    Raises as `Session.turn`.
    """
    session = plan.session
    conversation, opening = session._conversation, session._opening  # pyright: ignore[reportPrivateUsage]
    running = own_turn(conversation)
    if running is not None and not plan.resuming:
        return Begun(running, joined=True)
    if plan.resuming:
        resumed = await resuming.resume(conversation, opening, plan.asked.timeout)
        return Begun(resumed.turn, resumed.calls)
    floor = plan.cast.floor if plan.asked.agent is None else None
    turn = await admission.begin(conversation, opening, plan.asked, floor)
    session._opened()  # pyright: ignore[reportPrivateUsage]
    return Begun(turn)


async def drive(begun: Begun, plan: Plan, exchange: Exchange) -> None:
    """Run a turn that has begun to its end. Nothing is raised: the exchange gets the outcome.

    It must be the whole of its task, which is cancelled when the turn has to stop.
    """
    if begun.joined:
        await _join(begun.turn, plan, exchange)
        return
    turn = begun.turn
    exchange.attach(turn)
    turn.enter_context()
    watcher = asyncio.ensure_future(_watch(turn, asyncio.current_task()))
    told = {"agent": turn.agent, "conversation": plan.session.id, "turn": turn.number}
    with telemetry.span("turn", told) as span:
        try:
            loop = _Loop(turn, plan, exchange, watcher)
            response = await loop.run(turn.agent, begun.calls)
        except (asyncio.CancelledError, TurnInterrupted):
            reason = turn.stop.result() if turn.stop.done else "cancelled"
            stopped = TurnInterrupted(reason, session_id=plan.session.id)
            span.error(stopped)
            closing = turn.interrupt(reason, exchange.cut() or None)
            await _end(exchange, closing, stopped)
        except BaseException as error:
            span.error(error)
            exchange.cut()
            await _end(exchange, turn.fail(error), error)
        else:
            usage = response.usage
            span.set(input_tokens=usage.input_tokens, output_tokens=usage.output_tokens)
            exchange.finish(response)
        finally:
            watcher.cancel()
            if plan.passing:
                await asyncio.shield(plan.session.delete())


async def _join(turn: Turn, plan: Plan, exchange: Exchange) -> None:
    """Run an agent inside a turn of the calling code.

    While tool calls are open, what it says is no part of the history, which the result of the
    tool will be; then several may run at once. Otherwise it goes into the turn, one at a time.
    """
    agent = plan.cast.first
    aside = [*plan.asked.messages] if turn.row.open_calls else None
    loop = _Loop(turn, plan, exchange, None, aside)
    task = asyncio.current_task()
    if task is not None:
        exchange.on_cancel(partial(cancel_soon, asyncio.get_running_loop(), task))
    try:
        if exchange.reason is not None:
            raise asyncio.CancelledError
        _go_deeper()
        if aside is not None:
            response = await loop.run(agent)
        else:
            async with turn.joining:
                await turn.append(lambda draft: _enter(draft, plan.asked, agent))
                response = await loop.run(agent)
    except asyncio.CancelledError:
        exchange.cut()
        exchange.fail(TurnInterrupted("cancelled", session_id=plan.session.id))
    except BaseException as error:
        exchange.cut()
        exchange.fail(error)
    else:
        exchange.finish(response)


def _go_deeper() -> None:
    """Note that an agent runs inside another one's turn. Raises UsageError when it is too deep."""
    depth = _depth.get() + 1
    if depth > MAX_DEPTH:
        raise UsageError(f"agents run inside of each other's tools more than {MAX_DEPTH} deep")
    _depth.set(depth)


async def _enter(draft: Draft, asked: Asked, agent: str | None) -> None:
    """The request of an agent that joins a turn, which gives it the floor."""
    for message in asked.messages:
        draft.message(message)
    admission.give_floor(draft, agent)


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
        self,
        turn: Turn,
        plan: Plan,
        exchange: Exchange,
        watcher: asyncio.Future[None] | None,
        aside: list[Message] | None = None,
    ) -> None:
        self._turn = turn
        self._aside = aside
        """What is said aside, where the agent runs inside a tool of the turn."""
        self._plan = plan
        self._exchange = exchange
        self._watcher = watcher
        """What looks after the turn; None where the turn is the calling code's."""
        self._errors: list[ModelError] = []
        self._began = monotonic()
        self._speaker: Speaker
        self._context: RunContext
        self._askings: list[Asking] = []

    async def run(self, agent: str | None, calls: Sequence[OpenCall] = ()) -> Response:
        """The answer; the turn is complete then, or suspended, unless it is joined."""
        self._speak(self._plan.cast.speaker(agent))
        self._exchange.offer(StreamEvent(type="turn_started", turn=self._turn.number))
        if calls and not await self._resume(calls):
            return await self._suspend()
        for number in range(MAX_ROUNDS + 1):
            answer = await self._answer(may_call=number < MAX_ROUNDS)
            await self._exchange.drained()
            if not answer.calls:
                return await self._complete(answer)
            if number < MAX_ROUNDS and not await self._call_tools(answer):
                return await self._suspend()
        raise ModelError(f"{self._speaker.model.name} still calls tools after {MAX_ROUNDS} rounds")

    def _speak(self, speaker: Speaker) -> None:
        """Let an agent go on from here."""
        metadata: Mapping[str, Any] = self._turn.asked.metadata or {}
        self._speaker = speaker
        if self._aside is None:
            self._turn.agent = speaker.name
        self._context = RunContext(
            session=self._plan.session, turn=self._turn, agent=speaker.name, metadata=metadata
        )
        self._askings.append(
            Asking(
                self._plan.session,
                self._turn,
                speaker,
                self._context,
                self._exchange,
                self._aside,
            )
        )

    async def _answer(self, *, may_call: bool) -> Answer:
        """The answer of whoever speaks; of a stand-in where its model failed."""
        while True:
            try:
                answer = await self._askings[-1].answer(may_call=may_call)
            except BrokenAnswer as broken:
                raise broken.cause from broken.cause.__cause__
            except ModelError as error:
                self._errors.append(error)
                self._stand_in(error)
                continue
            return answer

    def _stand_in(self, error: ModelError) -> None:
        """Let the next agent go on with the turn; raises the error where there is none."""
        failed = self._speaker
        speaker = self._plan.cast.stand_in()
        if speaker is None:
            if len(self._errors) == 1:
                raise error
            told = "; ".join(str(each) for each in self._errors)
            raise RoutingError(f"every agent failed: {told}", self._errors) from error
        body = {"from": failed.name, "to": speaker.name, "error": str(error)[:1_000]}
        self._turn.note(events.FAILOVER, body)
        self._speak(speaker)

    # -- tools

    async def _call_tools(self, answer: Answer) -> bool:
        """Store the answer, run the calls in it; False where one waits for an approval."""
        turn, exchange = self._turn, self._exchange
        aside = self._aside is not None
        work = ToolRound(turn, self._speaker, self._context, aside=aside)

        async def build(draft: Draft) -> Message:
            message = answer.message(self._speaker.name)
            message = message if aside else draft.message(message)
            work.begin(draft, answer.calls)
            return message

        message = await asyncio.shield(turn.append(build))
        if self._aside is not None:
            self._aside.append(message)
        exchange.settled()
        await exchange.put(StreamEvent(type="message", message=message))
        for made in answer.calls:
            await exchange.put(StreamEvent(type="tool_call", call=made.call))
        return await self._run(work)

    async def _resume(self, calls: Sequence[OpenCall]) -> bool:
        """Run what may run of the calls that were open; False where one waits."""
        work = ToolRound(self._turn, self._speaker, self._context)

        async def build(draft: Draft) -> None:
            work.resume(draft, calls)

        await asyncio.shield(self._turn.append(build))
        return await self._run(work)

    async def _run(self, work: ToolRound) -> bool:
        await work.run(self._tell_result)
        if work.handoff is not None:
            await self._exchange.put(StreamEvent(type="handoff", handoff=work.handoff))
            self._speak(self._plan.cast.speaker(work.handoff.target))
        return not work.waiting

    async def _tell_result(self, message: Message) -> None:
        if self._aside is not None:
            self._aside.append(message)
        await self._exchange.put(StreamEvent(type="tool_result", message=message))

    # -- the end

    async def _suspend(self) -> Response:
        """Let go of the session until a person has decided; what waits is in the response."""
        turn, session = self._turn, self._plan.session
        if self._plan.passing or self._watcher is None:
            raise UsageError(
                "a tool call waits for an approval, and this turn cannot wait: it is part of "
                "another one, or its session is not kept; use agent.session(…).run(…)"
            )
        turn.check()
        self._watcher.cancel()
        messages = [m for m in await session.history() if (m.seq or 0) >= turn.number]
        await asyncio.shield(turn.suspend())
        waiting = await pending(session._conversation, session._opening)  # pyright: ignore[reportPrivateUsage]
        response = self._response(messages, "", None)
        response = msgspec.structs.replace(response, pending=waiting)
        event = StreamEvent(type="turn_suspended", response=response, turn=turn.number)
        self._exchange.offer(event)
        return response

    async def _complete(self, answer: Answer) -> Response:
        """The last message, its usage and the end of the turn: one commit."""
        turn, exchange = self._turn, self._exchange
        turn.check()
        made: list[Response] = []

        async def first(draft: Draft) -> None:
            message = answer.message(self._speaker.name)
            message = message if self._aside is not None else draft.message(message)
            messages = [*self._askings[-1].seen, message]
            made[:] = [self._response(messages, message.text, answer.output)]
            if self._watcher is not None:
                turn.result = msgspec.structs.replace(made[0], output=None)

        if self._watcher is None:
            await asyncio.shield(turn.append(first))
        else:
            self._watcher.cancel()
            await turn.complete(first=first)
        response = made[0]
        exchange.offer(StreamEvent(type="message", message=response.messages[-1]))
        exchange.offer(StreamEvent(type="usage", usage=response.usage))
        exchange.offer(StreamEvent(type="turn_completed", response=response, turn=turn.number))
        return response

    def _response(self, messages: list[Message], text: str, output: Any) -> Response:
        structured = self._speaker.output_type is not None
        return Response(
            text=text,
            output=output if structured else text,
            messages=messages,
            tool_calls=[call for message in messages for call in message.tool_calls or ()],
            usage=sum_of(asking.usage for asking in self._askings),
            turn=self._turn.number,
            latency=monotonic() - self._began,
            agent=self._speaker.name,
        )
