"""One step of a turn: the model is asked, until its answer is one that can be used."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing
from inspect import isawaitable
from typing import Any, cast

import msgspec

from tertulia import events, telemetry
from tertulia.agents.context import RunContext
from tertulia.agents.exchange import Exchange
from tertulia.agents.outputs import Output, prepare_output
from tertulia.agents.oversight import Oversight
from tertulia.agents.protocol import (
    FINAL_RESULT,
    ModelEvent,
    ModelRequest,
    TextDelta,
    ToolCallMade,
    UsageReport,
)
from tertulia.agents.response import StreamEvent
from tertulia.agents.rounds import distinct
from tertulia.agents.speakers import Speaker
from tertulia.agents.tools import prepare
from tertulia.agents.window import visible
from tertulia.errors import AgentError, ModelError, SchemaValidationError
from tertulia.messages import Message, ToolCall
from tertulia.session import Session
from tertulia.turns import Turn
from tertulia.usage import Usage
from tertulia.values import storable

OUTPUT_RETRIES = 2
"""How often a model is asked again whose answer does not fit its schema."""


_RUNNING = "This call is still running."


class Answer(msgspec.Struct):
    """What a model said to one request."""

    text: str
    calls: list[ToolCallMade]
    usage: UsageReport
    reason: str
    output: Any = None
    """The structured output, where one was asked for and given."""
    metadata: dict[str, Any] | None = None
    """What goes with the message."""

    def message(self, agent: str | None) -> Message:
        """As the message that is stored."""
        metadata = self.metadata or {}
        if self.reason not in ("stop", "tool_calls"):
            metadata = {"finish_reason": self.reason, **metadata}
        return Message.assistant(
            self.text,
            tool_calls=[made.call for made in self.calls] or None,
            agent=agent,
            metadata=metadata or None,
        )


class BrokenAnswer(Exception):
    """A model failed so that no other one may go on.

    A part of its answer was handed out (`shown`), or its error is none of ours.
    """

    def __init__(self, cause: Exception, *, shown: bool) -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.shown = shown


class Asking:
    """Asks the model of one speaker, with what it may see of the conversation."""

    def __init__(  # noqa: PLR0913, PLR0917
        self,
        session: Session,
        turn: Turn,
        speaker: Speaker,
        context: RunContext,
        out: Exchange,
        aside: Sequence[Message] | None = None,
        oversight: Oversight | None = None,
    ) -> None:
        self._session = session
        self._oversight = oversight
        self._turn = turn
        self.speaker = speaker
        self._context = context
        self._out = out
        self._aside = aside
        """What is said aside, by an agent inside a tool: it comes after the conversation."""
        self.usage = Usage()
        """What the requests so far consumed."""
        self.seen: list[Message] = []
        """What the running turn has said so far."""
        self.complaints: list[Message] = []
        """What the model is told of answers that were not taken; none of it is stored."""
        self.shown = False
        """Whether a part of the newest answer has left."""

    async def answer(self, *, may_call: bool) -> Answer:
        """The answer: tool calls to run, or the last word.

        Raises ModelError, BrokenAnswer, SchemaValidationError, ConfigurationError.
        """
        kind = self.speaker.output_type
        output = None if kind is None else await prepare_output(kind)
        request = await self._request(output, may_call)
        used = self._turn.call_ids
        used |= {call.id for message in request.messages for call in message.tool_calls or ()}
        for left in range(OUTPUT_RETRIES, -1, -1):
            answer = await self._ask(request, quiet=output is not None)
            answer.calls = distinct(answer.calls, used)
            used.update(made.call.id for made in answer.calls)
            if output is None:
                return answer
            problem = _settle(answer, output)
            if problem is None:
                if not answer.calls and self._oversight is None:
                    await self._out.put(StreamEvent(type="text_delta", text=answer.text))
                return answer
            self._turn.note(events.OUTPUT_REJECTED, _rejected(answer, problem))
            if not left:
                raise SchemaValidationError(
                    f"{self.speaker.model.name} gave no answer that fits "
                    f"{output.spec.name} in {OUTPUT_RETRIES + 1} attempts: {problem}"
                )
            messages = [*request.messages, *_complaint(answer, problem)]
            request = msgspec.structs.replace(request, messages=messages)
        raise AssertionError  # the last attempt returns or raises

    async def _request(self, output: Output | None, may_call: bool) -> ModelRequest:
        """What the model is to see: the conversation, with all of the running turn."""
        speaker = self.speaker
        said = (self._turn.row.details.system, await self._instructions())
        system = "\n\n".join(text for text in said if text) or None
        messages = await visible(self._session, self._turn.number, speaker.budget, system)
        self.seen = [m for m in messages if (m.seq or 0) >= self._turn.number]
        if self._aside is not None:
            messages = [*_answered(messages), *self._aside]
            self.seen = list(self._aside)
        messages = [*messages, *self.complaints]
        tools = await prepare(speaker.tools.values())
        return ModelRequest(
            system=system,
            messages=messages,
            tools=[*tools, *(transfer.spec for transfer in speaker.transfers.values())],
            may_call=may_call,
            output=None if output is None else output.spec,
            temperature=speaker.temperature,
            max_tokens=speaker.max_tokens,
        )

    async def _instructions(self) -> str | None:
        given = self.speaker.instructions
        if given is None or isinstance(given, str):
            return given
        made = given(self._context)
        return await made if isawaitable(made) else made

    async def _ask(self, request: ModelRequest, *, quiet: bool) -> Answer:
        """Ask once, and hand the text out as it comes, unless `quiet`."""
        answer = Answer("", [], UsageReport(), "stop")
        try:
            with telemetry.span("chat", self._told(request)) as span:
                await self._read(request, answer, quiet=quiet)
                usage = answer.usage
                span.set(
                    input_tokens=usage.input_tokens,
                    output_tokens=usage.output_tokens,
                    finish_reasons=(answer.reason,),
                )
        except ModelError as error:
            self._note_usage_of_failure(answer)
            if self.shown:
                raise BrokenAnswer(error, shown=True) from error
            raise
        except AgentError:
            raise
        except Exception as error:
            if self._oversight is None:
                raise
            self._note_usage_of_failure(answer)
            raise BrokenAnswer(error, shown=self.shown) from error
        self._note_usage(answer.usage)
        return answer

    async def _read(self, request: ModelRequest, answer: Answer, *, quiet: bool) -> None:
        text: list[str] = []
        self.shown = False
        try:
            async with _stream(self.speaker, request) as stream:
                async for event in stream:
                    if isinstance(event, TextDelta):
                        text.append(event.text)
                        if not (quiet or await self._say(event.text)):
                            return
                    elif isinstance(event, ToolCallMade):
                        answer.calls.append(event)
                    elif isinstance(event, UsageReport):
                        answer.usage = event
                    else:
                        answer.reason = event.reason
        finally:
            answer.text = storable("".join(text))

    async def _say(self, text: str) -> bool:
        """Hand a piece of text out, or what may leave of it; False where the answer must stop."""
        if not self._out.listened:
            return True
        leaving = text
        if self._oversight is not None:
            screened = await self._oversight.screen(text, self._context)
            if screened is None:
                return False
            leaving = screened
        if leaving:
            self.shown = True
            await self._out.put(StreamEvent(type="text_delta", text=leaving))
        return True

    def _told(self, request: ModelRequest) -> dict[str, Any]:
        """What a span says of a request."""
        return {
            "conversation": self._session.id,
            "model": self.speaker.model.name,
            "temperature": request.temperature,
            "max_tokens": request.max_tokens,
        }

    def _note_usage_of_failure(self, answer: Answer) -> None:
        if answer.usage != UsageReport():
            self._note_usage(answer.usage)

    def _note_usage(self, usage: UsageReport) -> None:
        """What one request consumed, as an event beside what came of it."""
        self.usage = self.usage.plus(usage.input_tokens, usage.output_tokens)
        body: dict[str, Any] = {
            "agent": self.speaker.name,
            "model": self.speaker.model.name,
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
        }
        self._turn.note(events.USAGE, {k: v for k, v in body.items() if v is not None})


class _stream:  # noqa: N801 - reads as the function that it is
    """A model's answer as a context: it is closed however the reading ends."""

    def __init__(self, speaker: Speaker, request: ModelRequest) -> None:
        self._events = speaker.model.stream(request)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> AsyncIterator[ModelEvent]:
        if hasattr(self._events, "aclose"):
            await self._stack.enter_async_context(aclosing(cast("Any", self._events)))
        return self._events

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()


def _answered(messages: list[Message]) -> list[Message]:
    """The messages as a model may read them while calls at their end still run."""
    results = {message.tool_call_id for message in messages if message.tool_call_id}
    calls = [call for message in messages for call in message.tool_calls or ()]
    running = [call for call in calls if call.id not in results]
    return [*messages, *(Message.tool(_RUNNING, call.id, name=call.name) for call in running)]


def _settle(answer: Answer, output: Output) -> str | None:
    """Find the structured output in an answer; what is wrong with it, for the model to mend.

    Where the model calls other tools in the same answer, these run first, and it is asked again.
    """
    final = next((made for made in answer.calls if made.call.name == FINAL_RESULT), None)
    others = [made for made in answer.calls if made.call.name != FINAL_RESULT]
    if others:
        answer.calls = others
        return None
    try:
        if final is None:
            answer.output = output.read(answer.text)
        elif final.malformed is not None:
            return f"the arguments are no JSON object: {final.malformed[:200]}"
        else:
            answer.output = output.read_arguments(final.call.arguments)
    except ValueError as error:
        return str(error)
    answer.text, answer.calls = output.dump(answer.output), []
    return None


def _rejected(answer: Answer, problem: str) -> dict[str, Any]:
    """What the audit keeps of an answer that did not fit."""
    text = answer.text
    for made in answer.calls:
        said = made.malformed or msgspec.json.encode(made.call.arguments).decode()
        text = f"{text}{said}"
    return {"text": text[:10_000], "error": problem}


def _complaint(answer: Answer, problem: str) -> Sequence[Message]:
    """What the model is shown of its answer that did not fit; none of it is stored."""
    said = f"This does not fit the schema: {problem}. Answer again, with only the corrected JSON."
    finals: list[ToolCall] = [made.call for made in answer.calls]
    if not finals:
        shown = [Message.assistant(answer.text)] if answer.text else []
        return [*shown, Message.user(said)]
    return [
        Message.assistant(answer.text, tool_calls=finals),
        *(Message.tool(said, call.id, name=call.name) for call in finals),
    ]
