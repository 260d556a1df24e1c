"""One round of tool calls: run in parallel, noted before and after."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec

from tertulia import events
from tertulia.agents.context import RunContext
from tertulia.agents.protocol import ToolCallMade
from tertulia.agents.tools import AnyTool
from tertulia.drafting import Draft
from tertulia.errors import ToolError
from tertulia.messages import Message, ToolCall
from tertulia.turns import Turn

MAX_PARALLEL = 16
TOGETHER = 0.05
"""Seconds that a finished call waits for the others, so that their results are one commit."""
_GRACE = 1.0
"""Seconds that cancelled tools have to end."""


class Ended(msgspec.Struct, frozen=True):
    """How a call ended: the text for the model, and the error if it failed."""

    call: ToolCall
    text: str
    error: str | None = None

    def message(self) -> Message:
        """The result as the message that is stored."""
        return Message.tool(
            self.text,
            self.call.id,
            name=self.call.name,
            metadata={"error": True} if self.error is not None else None,
        )


class ToolRound:
    """The calls that a model made in one answer."""

    def __init__(
        self,
        turn: Turn,
        tools: Mapping[str, AnyTool],
        context: RunContext,
        calls: Sequence[ToolCallMade],
    ) -> None:
        self._turn = turn
        self._tools = tools
        self._context = context
        self._calls = calls
        self._places = asyncio.Semaphore(MAX_PARALLEL)

    def note(self, draft: Draft) -> None:
        """Draft that the calls are about to run."""
        for made in self._calls:
            tool = self._tools.get(made.call.name)
            runs = tool is not None and made.malformed is None
            effect = tool.effect if tool is not None and runs else "none"
            body = {"call": made.call.id, "name": made.call.name, "effect": effect}
            draft.add(events.TOOL_CALLED, body)

    async def run(self, tell: Callable[[Message], Awaitable[None]]) -> None:
        """Run the calls; each result is told once it is stored.

        What had finished is stored also when the round is cancelled.
        """
        left: list[asyncio.Future[Ended]] = [
            asyncio.ensure_future(self._run(made)) for made in self._calls
        ]
        try:
            while left:
                await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
                await asyncio.wait(left, timeout=TOGETHER)
                ready = [task for task in left if task.done()]
                left = [task for task in left if task not in ready]
                for message in await asyncio.shield(self._store(ready)):
                    await tell(message)
        except BaseException:
            await self._stop(left)
            raise

    async def _stop(self, tasks: list[asyncio.Future[Ended]]) -> None:
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_GRACE)
        finished = [task for task in tasks if task.done() and not task.cancelled()]
        if finished and not self._turn.closed:
            await asyncio.shield(self._store(finished))

    async def _run(self, made: ToolCallMade) -> Ended:
        call = made.call
        try:
            async with self._places:
                if made.malformed is not None:
                    raise ToolError(f"the arguments are no JSON object: {made.malformed[:200]}")
                tool = self._tools.get(call.name)
                if tool is None:
                    known = ", ".join(self._tools) or "none"
                    raise ToolError(f"there is no tool {call.name!r}; there are: {known}")
                context = self._context.for_call(call.id)
                return Ended(call, await tool.invoke(call.arguments, context))
        except (Exception, SystemExit) as error:
            text = str(error) if isinstance(error, ToolError) else _described(error)
            return Ended(call, f"Error: {text}", text[:1_000])

    async def _store(self, tasks: list[asyncio.Future[Ended]]) -> list[Message]:
        ended = [task.result() for task in tasks]

        async def build(draft: Draft) -> list[Message]:
            return [stored for each in ended if (stored := _draft(draft, each)) is not None]

        return await self._turn.append(build)


def _draft(draft: Draft, ended: Ended) -> Message | None:
    body = {"call": ended.call.id}
    if ended.error is None:
        draft.add(events.TOOL_RETURNED, body, actor="tool")
    else:
        draft.add(events.TOOL_FAILED, {**body, "error": ended.error}, actor="tool")
    if ended.call.id not in draft.open_calls:
        return None  # the tool wrote into the conversation itself, which closed the call
    return draft.message(ended.message())


def distinct(calls: Sequence[ToolCallMade]) -> list[ToolCallMade]:
    """The calls, each with an id of its own within the answer."""
    seen: set[str] = set()
    result: list[ToolCallMade] = []
    for number, made in enumerate(calls):
        call = made.call
        if not call.id or call.id in seen:
            call = ToolCall(f"{call.id or 'call'}_{number}", call.name, call.arguments)
        seen.add(call.id)
        result.append(ToolCallMade(call, made.malformed))
    return result


def _described(error: BaseException) -> str:
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
