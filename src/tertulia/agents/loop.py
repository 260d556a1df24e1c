"""One turn of an agent: ask the model, run the tools that it calls, until it answers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any

import msgspec

from tertulia import events
from tertulia.agents.asking import Answer, Asking, BrokenAnswer
from tertulia.agents.context import RunContext
from tertulia.agents.exchange import Exchange
from tertulia.agents.oversight import Again, Oversight, Pass, Say
from tertulia.agents.protocol import UsageReport
from tertulia.agents.response import HandoffMade, Response, StreamEvent
from tertulia.agents.rounds import ToolRound
from tertulia.agents.speakers import Cast, Speaker
from tertulia.agents.window import Budget, visible
from tertulia.approvals import pending
from tertulia.asked import Asked
from tertulia.drafting import Draft
from tertulia.errors import ModelError, RoutingError, SchemaValidationError, UsageError
from tertulia.messages import Message
from tertulia.resuming import OpenCall
from tertulia.session import Session
from tertulia.turns import Turn
from tertulia.usage import NOTHING_SPENT, Usage, sum_of
from tertulia.values import storable

_ONLY_THE_TURN = Budget(keep_last=1)
MAX_ROUNDS = 10
"""Rounds with tools in one turn; then the model is asked once more, without them."""


MAX_STORED = 500_000
"""Bytes that are kept whole for a repetition of the request."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A turn as it was asked for."""

    session: Session
    passing: bool
    """The session is for this turn only, and removed after it."""
    asked: Asked
    cast: Cast
    by_floor: bool = False
    """Whoever has the floor answers."""
    resuming: bool = False
    """It goes on with the turn that is open, and `asked` only says how long to wait."""
    oversight: Oversight | None = None
    """What else decides how the turn goes."""


class Loop:
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
        self._spent = NOTHING_SPENT
        self._oversight = plan.oversight

    async def run(
        self, agent: str | None, calls: Sequence[OpenCall] = (), spent: Usage = NOTHING_SPENT
    ) -> Response:
        """The answer; the turn is complete then, or suspended, unless it is joined.

        `calls` are open in a turn that goes on, and `spent` is what it consumed before.
        """
        self._spent = spent
        self._speak(self._plan.cast.speaker(agent))
        self._exchange.offer(StreamEvent(type="turn_started", turn=self._turn.number))
        ended = await self._begin(calls)
        if ended is not None:
            return ended
        for number in range(MAX_ROUNDS + 1):
            answer = await self._answer(may_call=number < MAX_ROUNDS)
            if isinstance(answer, Say):
                return await self.say(answer)
            await self._exchange.drained()
            if not answer.calls:
                return await self._complete(answer)
            if number < MAX_ROUNDS and not await self._call_tools(answer):
                return await self._suspend()
            if said := self._said_instead():
                return await self.say(said)
        raise ModelError(f"{self._speaker.model.name} still calls tools after {MAX_ROUNDS} rounds")

    async def _begin(self, calls: Sequence[OpenCall]) -> Response | None:
        """What comes before the model is asked; the answer, where that ends the turn."""
        if self._oversight is not None:
            said = await self._oversight.begin(self._context, resumed=self._plan.resuming)
            if said is not None:
                return await self.say(said)
        if calls and not await self._resume(calls):
            return await self._suspend()
        said = self._said_instead()
        return None if said is None else await self.say(said)

    def _said_instead(self) -> Say | None:
        """The answer that somebody gave already."""
        return None if self._oversight is None else self._oversight.instead

    def _speak(self, speaker: Speaker) -> None:
        """Let an agent go on from here."""
        metadata: Mapping[str, Any] = self._turn.asked.metadata or {}
        self._speaker = speaker
        if self._oversight is not None:
            self._oversight.speaks(speaker.name, first=not self._askings)
            if self._oversight.max_tool_calls == 0:
                speaker = self._speaker = msgspec.structs.replace(speaker, tools={})
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
                self._oversight,
            )
        )

    async def _answer(self, *, may_call: bool) -> Answer | Say:
        """The answer of whoever speaks; of a stand-in where its model failed."""
        while True:
            asking = self._askings[-1]
            try:
                answer = await asking.answer(may_call=may_call)
            except (BrokenAnswer, ModelError, SchemaValidationError) as error:
                said = await self._failed(error)
                if said is not None:
                    return said
                continue
            if self._oversight is None:
                return answer
            ruling = await self._oversight.review(answer.text, answer.calls, self._context)
            if isinstance(ruling, Say):
                return ruling
            if isinstance(ruling, Pass):
                asking.complaints.clear()
                rest = ruling.rest
                if self._speaker.output_type is not None:  # nothing of it has left yet
                    rest = "" if answer.calls else answer.text
                if rest:
                    await self._exchange.put(StreamEvent(type="text_delta", text=rest))
                return answer
            self._complain(ruling, answer.text)

    async def _failed(
        self, failure: BrokenAnswer | ModelError | SchemaValidationError
    ) -> Say | None:
        """What is to be said where there is no answer; None asks again. Else it is raised."""
        broken = isinstance(failure, BrokenAnswer)
        error = failure.cause if isinstance(failure, BrokenAnswer) else failure
        shown = isinstance(failure, BrokenAnswer) and failure.shown
        if self._oversight is not None:
            ruling = await self._oversight.model_failed(error, self._context, shown=shown)
            if isinstance(ruling, Again):
                self._complain(ruling, "")
                return None
            if ruling is not None:
                return ruling
        if broken or not isinstance(error, ModelError):
            raise error from error.__cause__
        self._errors.append(error)
        self._stand_in(error)
        return None

    def _complain(self, ruling: Again, text: str) -> None:
        """Tell the model why its answer was not taken."""
        said = [Message.assistant(text)] if text.strip() else []
        self._askings[-1].complaints += [*said, Message.user(ruling.reason)]

    def _stand_in(self, error: ModelError) -> None:
        """Let the next agent go on with the turn; raises the error where there is none."""
        failed = self._speaker
        speaker = self._plan.cast.stand_in([asking.speaker for asking in self._askings])
        if speaker is None:
            if len(self._errors) == 1:
                raise error
            told = "; ".join(str(each) for each in self._errors)
            raise RoutingError(f"every agent failed: {told}", self._errors) from error
        body: dict[str, Any] = {"from": failed.name, "to": speaker.name}
        body["error"] = storable(str(error)[:1_000])
        if self._aside is not None:
            body["aside"] = True
        self._turn.note(events.FAILOVER, body)
        self._speak(speaker)

    # -- tools

    async def _call_tools(self, answer: Answer) -> bool:
        """Store the answer, run the calls in it; False where one waits for an approval."""
        turn, exchange = self._turn, self._exchange
        aside = self._aside is not None
        work = self._round(aside=aside)

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
        work = self._round(aside=False)

        async def build(draft: Draft) -> None:
            work.resume(draft, calls)

        await asyncio.shield(self._turn.append(build))
        return await self._run(work)

    def _round(self, *, aside: bool) -> ToolRound:
        return ToolRound(
            self._turn, self._speaker, self._context, aside=aside, oversight=self._oversight
        )

    async def _run(self, work: ToolRound) -> bool:
        await work.run(self._tell_result)
        made = work.handoff or self._moved()
        if made is not None:
            await self._exchange.put(StreamEvent(type="handoff", handoff=made))
            self._speak(self._plan.cast.speaker(made.target))
        if self._oversight is not None and work.failures and self._oversight.instead is None:
            said = await self._oversight.tools_failed(work.failures, self._context)
            self._oversight.instead = said
        return not work.waiting

    def _moved(self) -> HandoffMade | None:
        """Where a tool gave the floor to."""
        floor = self._turn.row.details.agent
        if self._oversight is None or self._aside is not None:
            return None
        return (
            HandoffMade(self._speaker.name, floor)
            if floor not in ("", None, self._speaker.name)
            else None
        )

    async def _tell_result(self, message: Message) -> None:
        if self._aside is not None:
            self._aside.append(message)
        await self._exchange.put(StreamEvent(type="tool_result", message=message))

    # -- the end

    async def say(self, said: Say, *, stopped: bool = False) -> Response:
        """End the turn with an answer that is not the model's; also one that was `stopped`."""
        self._exchange.offer(StreamEvent(type="text_delta", text=said.text))
        answer = Answer(said.text, [], UsageReport(), "stop", metadata=said.metadata)
        answer.output = said.text
        return await self._complete(answer, stopped=stopped)

    async def _suspend(self) -> Response:
        """Let go of the session until a person has decided; what waits is in the response."""
        turn, session = self._turn, self._plan.session
        if self._plan.passing or self._watcher is None:
            raise UsageError(
                "a tool call waits for an approval, and this turn cannot wait: it is part of "
                "another one, or its session is not kept; use agent.session(…).run(…)"
            )
        turn.check()
        await self._stage_instead()
        self._watcher.cancel()
        shown = await visible(session, turn.number, _ONLY_THE_TURN)
        messages = [m for m in shown if (m.seq or 0) >= turn.number]
        await asyncio.shield(turn.suspend())
        waiting = await pending(session._conversation, session._opening)  # pyright: ignore[reportPrivateUsage]
        response = self._response(messages, "", None)
        response = msgspec.structs.replace(response, pending=waiting)
        event = StreamEvent(type="turn_suspended", response=response, turn=turn.number)
        self._exchange.offer(event)
        return response

    async def _stage_instead(self) -> None:
        """Keep what was said in the round: it comes after the results that are waited for."""
        said = self._said_instead()
        if said is None:
            return
        self._turn.staging = True
        message = Message.assistant(said.text, agent=self._speaker.name, metadata=said.metadata)
        await asyncio.shield(self._turn.add_message(message))

    async def _complete(self, answer: Answer, *, stopped: bool = False) -> Response:
        """The last message, its usage and the end of the turn: one commit."""
        turn, exchange = self._turn, self._exchange
        if not stopped:
            turn.check()
        made: list[Response] = []

        async def first(draft: Draft) -> None:
            message = answer.message(self._speaker.name)
            if self._aside is None:
                draft.close_calls(turn.trace.unstarted)
                message = draft.message(message)
            messages = [*self._askings[-1].seen, message]
            made[:] = [self._response(messages, message.text, answer.output)]
            if self._watcher is not None and turn.asked.key is not None:
                turn.result = _stored(made[0])

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
            usage=sum_of((self._spent, *(asking.usage for asking in self._askings))),
            turn=self._turn.number,
            latency=monotonic() - self._began,
            agent=self._speaker.name,
        )


def _stored(response: Response) -> Response:
    """What a repetition of the request gets; of a long turn only the answer."""
    whole = msgspec.structs.replace(response, output=None)
    last = msgspec.structs.replace(whole, messages=response.messages[-1:], tool_calls=[])
    for kept in (whole, last):
        if len(msgspec.json.encode(kept)) <= MAX_STORED:
            return kept
    return msgspec.structs.replace(last, messages=[])
