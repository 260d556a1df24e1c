"""A client's turn as it happens."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from tertulia.agents.response import StreamEvent
from tertulia.agents.streaming import AsyncStream
from tertulia.errors import TurnInterrupted, UsageError
from tertulia.messages import Message
from tertulia.swarm.answer import Answer, answer_of

if TYPE_CHECKING:
    from tertulia.swarm.desk import Desk


class AnswerStream:
    """``async for event in client.stream("…")``: `StreamEvent`s, then `answer`.

    What a policy refuses comes as its ban message. Who stops early cancels the turn; use it as a
    context manager, or call `aclose`, to be sure when.
    """

    def __init__(self, desk: Desk, request: Message, options: Mapping[str, Any]) -> None:
        self._answers: list[Answer] = []
        self._events = _events(desk, request, options, self._answers)

    @property
    def answer(self) -> Answer:
        """The answer. Raises UsageError before the end."""
        if not self._answers:
            raise UsageError("the stream has not ended; iterate over all of it first")
        return self._answers[0]

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StreamEvent:
        return await anext(self._events)

    async def aclose(self) -> None:
        """Stop the turn; what was handed out is kept."""
        await self._events.aclose()

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

    It does not know the `AnswerStream`, so that one that is dropped ends its turn at once.
    """
    verdict = await desk.admit(request, options.get("timeout"))
    if isinstance(verdict, Answer):
        answers.append(verdict)
        yield StreamEvent(type="text_delta", text=str(verdict))
        return
    plan = desk.plan(request, verdict, options)
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
    finally:
        await desk.life.leave(exchange)
