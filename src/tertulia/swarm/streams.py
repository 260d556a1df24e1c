"""A client's turn as it happens."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from tertulia.agents.exchange import Exchange
from tertulia.agents.response import StreamEvent
from tertulia.agents.streaming import AsyncStream
from tertulia.errors import TurnInterrupted, UsageError
from tertulia.messages import Message
from tertulia.policies import Verdict
from tertulia.swarm.answer import Answer, answer_of
from tertulia.swarm.parcels import Answered, Happened

if TYPE_CHECKING:
    from tertulia.swarm.desk import Desk


class ClientStream:
    """``async for event in client.stream("…")``: `StreamEvent`s, then `answer`.

    What a policy refuses comes as its ban message. Who stops early cancels the turn; use it as a
    context manager, or call `aclose`, to be sure when.
    """

    def __init__(self, desk: Desk, request: Message, options: Mapping[str, Any]) -> None:
        self._desk = desk
        self._answers: list[Answer] = []
        self._error: Exception | None = None
        self._events = _events(desk, request, options, self._answers)

    @property
    def answer(self) -> Answer:
        """The answer; one of the kind ``cancelled`` where the stream was closed before it came.

        Raises UsageError before the end, and what the stream raised.
        """
        if self._error is not None:
            raise self._error
        if not self._answers:
            raise UsageError("the stream has not ended; iterate over all of it, or close it, first")
        return self._answers[0]

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StreamEvent:
        self._check_idle()
        try:
            return await anext(self._events)
        except StopAsyncIteration:
            raise
        except Exception as error:
            self._error = error
            raise

    async def aclose(self) -> None:
        """Stop the turn; what was handed out is kept.

        Raises UsageError while another task waits for an event of the stream.
        """
        self._check_idle()
        await self._events.aclose()
        if not self._answers:
            self._answers.append(Answer(kind="cancelled", agent=self._desk.agent))

    def _check_idle(self) -> None:
        events: Any = self._events
        if events.ag_running:
            raise UsageError(
                "another task waits for an event of this stream; call client.cancel() to stop its "
                "turn, or cancel that task"
            )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()


async def _events(
    desk: Desk, request: Message, options: Mapping[str, Any], answers: list[Answer]
) -> AsyncGenerator[StreamEvent]:
    """Run the turn; its answer is added to `answers`.

    It does not know the `ClientStream`, so that one that is dropped ends its turn at once.
    """
    given = {key: value for key, value in options.items() if value is not None}
    call = desk.call("stream", request=request, options=given)
    async with aclosing(desk.seat.tell(call)) as telling:
        async for told in telling:
            if isinstance(told, Happened):
                yield told.event
            elif isinstance(told, Answered):
                answers.append(told.answer())
    if answers:
        return
    plan = await desk.prepare(request, options)
    if isinstance(plan, Answer):
        answers.append(plan)
        yield StreamEvent(type="text_delta", text=str(plan))
        return
    oversight: Any = plan.oversight
    stream = AsyncStream(plan)
    exchange = stream._exchange  # pyright: ignore[reportPrivateUsage]
    desk.life.enter(exchange, oversight)
    try:
        async with stream:
            async for event in stream:
                if event.type != "error" or not isinstance(event.error, TurnInterrupted):
                    yield event
        answers.append(answer_of(stream.response, oversight.verdict))
    except TurnInterrupted:
        answers.append(Answer(kind="cancelled", agent=desk.agent))
    except GeneratorExit:
        answers.extend(_made(exchange, oversight.verdict))
        raise
    finally:
        await desk.life.leave(exchange)


def _made(exchange: Exchange, verdict: Verdict | None) -> list[Answer]:
    """The answer of a turn that was complete when its stream was closed; none of other turns."""
    if not exchange.outcome.done:
        return []
    try:
        return [answer_of(exchange.outcome.result(), verdict)]
    except Exception:
        return []
