"""One round of tool calls: noted before and after, run in parallel, transfers last."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import Any

import msgspec

from tertulia import events, telemetry
from tertulia.agents.context import RunContext
from tertulia.agents.oversight import Oversight, ToolFailure
from tertulia.agents.protocol import ToolCallMade
from tertulia.agents.response import HandoffMade
from tertulia.agents.speakers import Speaker, Transfer
from tertulia.closing import HARMLESS
from tertulia.drafting import OUTCOME_UNKNOWN, Draft
from tertulia.errors import ToolError
from tertulia.floor import floor_of, give_floor
from tertulia.messages import Message, ToolCall
from tertulia.resuming import OpenCall
from tertulia.turns import Turn

MAX_PARALLEL = 16
TOGETHER = 0.05
"""Seconds that a finished call waits for the others, so that their results are one commit."""
_NO_APPROVAL = "this tool needs a person's approval, which cannot be had inside of another tool"
_NO_MORE = "no more tool calls may be made in this turn; answer with what is known"
MAX_ERROR = 1_000
"""Characters of an error that the model reads."""
_GRACE = 1.0
"""Seconds that cancelled tools have to end."""

Tell = Callable[[Message], Awaitable[None]]


class Ended(msgspec.Struct, frozen=True):
    """How a call ended: the text for the model, and the error if it failed."""

    call: ToolCall
    text: str
    error: str | None = None
    outcome: str | None = None
    """Why there is no result of the tool: ``rejected`` or ``unknown``."""
    cause: BaseException | None = None
    """What the tool raised."""

    def message(self) -> Message:
        """The result as the message that is stored."""
        metadata: dict[str, Any] = {} if self.error is None else {"error": True}
        if self.outcome is not None:
            metadata["outcome"] = self.outcome
        return Message.tool(self.text, self.call.id, name=self.call.name, metadata=metadata or None)


class ToolRound:
    """The calls that a model made in one answer, or those of them that are still open."""

    def __init__(
        self,
        turn: Turn,
        speaker: Speaker,
        context: RunContext,
        *,
        aside: bool = False,
        oversight: Oversight | None = None,
    ) -> None:
        self._turn = turn
        self._oversight = oversight
        self._aside = aside
        """The calls are of an agent inside a tool: noted in the log, but no part of the history."""
        self._speaker = speaker
        self._context = context
        self._places = asyncio.Semaphore(MAX_PARALLEL)
        self._calls: list[ToolCallMade] = []
        self._ended: list[Ended] = []
        self._transfers: list[ToolCallMade] = []
        self.waiting: list[ToolCall] = []
        """Calls that nobody has approved yet."""
        self.handoff: HandoffMade | None = None
        """Where the floor went."""
        self.failures: list[ToolFailure] = []
        """The calls that gave no result."""
        self._ran = 0
        """How many tool calls were let run."""

    # -- what is to run

    def begin(self, draft: Draft, calls: Sequence[ToolCallMade]) -> None:
        """Draft that the calls of an answer are about to run, or wait for an approval.

        It may be called again, for a draft that replaces the one before.
        """
        self._calls, self._transfers, self._ended, self.waiting = [], [], [], []
        allowed = self._count_anew()
        for made in calls:
            tool = self._speaker.tools.get(made.call.name)
            transfer = made.call.name in self._speaker.transfers
            if allowed is not None and self._ran >= allowed and not transfer:
                self._ended.append(Ended(made.call, f"Error: {_NO_MORE}", _NO_MORE))
            elif tool is not None and tool.requires_approval and made.malformed is None:
                if self._aside:
                    self._ended.append(Ended(made.call, f"Error: {_NO_APPROVAL}", _NO_APPROVAL))
                    continue
                self.waiting.append(made.call)
                draft.add(events.APPROVAL_REQUESTED, self._described(made.call))
                self._ran += 1
            else:
                self._start(draft, made)
                self._ran += not transfer
        if self._oversight is not None:
            self._oversight.called(self._ran)

    def _count_anew(self) -> int | None:
        """How many calls may run; None is any number."""
        earlier, self._ran = self._ran, 0
        if self._oversight is None:
            return None
        self._oversight.called(-earlier)
        return self._oversight.calls_left()

    def resume(self, draft: Draft, calls: Iterable[OpenCall]) -> None:
        """Draft what becomes of calls that were open when their process died or let go."""
        self._calls, self._transfers, self._ended = [], [], []
        for each in calls:
            tool = self._speaker.tools.get(each.call.name)
            known = tool is not None or each.call.name in self._speaker.transfers
            if each.standing == "rejected":
                text = "This call was rejected by a person and did not run."
                text = f"{text} Reason: {each.reason}" if each.reason else text
                self._ended.append(Ended(each.call, text, outcome="rejected"))
            elif each.standing == "approved" or (
                known and (tool is None or tool.effect in HARMLESS)
            ):
                self._start(draft, ToolCallMade(each.call))
            else:
                self._ended.append(Ended(each.call, OUTCOME_UNKNOWN, outcome="unknown"))

    def _start(self, draft: Draft, made: ToolCallMade) -> None:
        tool = self._speaker.tools.get(made.call.name)
        runs = tool is not None and made.malformed is None
        effect = tool.effect if tool is not None and runs else "none"
        body = {"call": made.call.id, "name": made.call.name, "effect": effect}
        draft.add(events.TOOL_CALLED, body)
        transfer = tool is None and made.call.name in self._speaker.transfers
        (self._transfers if transfer else self._calls).append(made)

    def _described(self, call: ToolCall) -> dict[str, Any]:
        body = {"call": call.id, "name": call.name, "arguments": call.arguments}
        return body if self._speaker.name is None else {**body, "agent": self._speaker.name}

    # -- running

    async def run(self, tell: Tell) -> None:
        """Run the calls; each result is told once it is stored.

        What had finished is stored also when the round is cancelled. The floor changes only
        where no call is left waiting.
        """
        self._turn.staging = True
        try:
            await self._run_all(tell)
        finally:
            self._turn.staging = self._aside

    async def _run_all(self, tell: Tell) -> None:
        if self._ended:
            for message in await asyncio.shield(self._store(self._ended)):
                await tell(message)
        left: list[asyncio.Future[Ended]] = [
            asyncio.ensure_future(self._run(made)) for made in self._calls
        ]
        try:
            while left:
                await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
                if not all(task.done() for task in left):
                    await asyncio.wait(left, timeout=TOGETHER)
                ready = [task.result() for task in left if task.done()]
                left = [task for task in left if not task.done()]
                for message in await asyncio.shield(self._store(ready)):
                    await tell(message)
        except BaseException:
            await self._stop(left)
            raise
        if self._transfers and not self.waiting:
            for message in await asyncio.shield(self._transfer()):
                await tell(message)

    async def _stop(self, tasks: list[asyncio.Future[Ended]]) -> None:
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_GRACE)
        finished = [task.result() for task in tasks if task.done() and not task.cancelled()]
        if finished and not self._turn.closed:
            await asyncio.shield(self._store(finished))

    async def _run(self, made: ToolCallMade) -> Ended:
        call = made.call
        tool = self._speaker.tools.get(call.name)
        told = {
            "tool": None if tool is None else tool.name,
            "effect": None if tool is None else tool.effect,
            "call": call.id,
        }
        try:
            async with self._places:
                with telemetry.span("tool", told):
                    return Ended(call, await self._invoke(made))
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            text = described(error)
            return Ended(call, f"Error: {text}", text, cause=error)

    async def _invoke(self, made: ToolCallMade) -> str:
        call = made.call
        if made.malformed is not None:
            raise ToolError(f"the arguments are no JSON object: {made.malformed[:200]}")
        tool = self._speaker.tools.get(call.name)
        if tool is None:
            known = ", ".join([*self._speaker.tools, *self._speaker.transfers]) or "none"
            raise ToolError(f"there is no tool {call.name!r}; there are: {known}")
        limit = None if self._oversight is None else self._oversight.tool_timeout
        return await tool.invoke(call.arguments, self._context.for_call(call.id), limit)

    async def _store(self, ended: Sequence[Ended]) -> list[Message]:
        async def build(draft: Draft) -> list[Message]:
            stored = [self._draft(draft, each) for each in ended]
            self._turn.draft_staged(draft)
            return [message for message in stored if message is not None]

        messages = await self._turn.append(build)
        if not self._turn.row.open_calls:
            self._turn.staged.clear()
        self.failures += [self._failure(each) for each in ended if each.cause is not None]
        return messages

    def _failure(self, ended: Ended) -> ToolFailure:
        name = ended.call.name
        return ToolFailure(
            name, ended.call.id, ended.error or "", name in self._speaker.tools, ended.cause
        )

    def _draft(self, draft: Draft, ended: Ended) -> Message | None:
        body = {"call": ended.call.id}
        if ended.error is not None:
            draft.add(events.TOOL_FAILED, {**body, "error": ended.error}, actor="tool")
        elif ended.outcome is None:
            draft.add(events.TOOL_RETURNED, body, actor="tool")
        if self._aside:
            return ended.message()
        if ended.call.id not in draft.open_calls:
            return None  # the tool wrote into the conversation itself, which closed the call
        return draft.message(ended.message())

    # -- the floor

    async def _transfer(self) -> list[Message]:
        """Give the floor to the first agent that was asked for; the others stay where they are."""
        ended, allowed = self._allowed()
        if not allowed:
            return await self._store(ended)
        first, *others = allowed
        transfer: Transfer = self._speaker.transfers[first.call.name]
        reason = first.call.arguments.get("reason")
        made = HandoffMade(
            self._speaker.name, transfer.target, reason if isinstance(reason, str) else ""
        )
        refused = f"The conversation went to {transfer.target}; only one transfer at a time."
        ended = [
            *ended,
            Ended(first.call, f"The conversation is now with {transfer.target}."),
            *(Ended(other.call, refused, refused) for other in others),
        ]

        async def build(draft: Draft) -> list[Message]:
            stored = [self._draft(draft, each) for each in ended]
            if not self._aside:  # a tool of the round may have given the floor away before
                body = {
                    "from": floor_of(draft) or made.source,
                    "to": made.target,
                    "reason": made.reason,
                }
                draft.add(events.HANDOFF, body, actor="agent")
                give_floor(draft, made.target)
            return [message for message in stored if message is not None]

        messages = await self._turn.append(build)
        self.handoff = made
        return messages

    def _allowed(self) -> tuple[list[Ended], list[ToolCallMade]]:
        """The transfers that are refused, and those that may be."""
        refused: list[Ended] = []
        allowed: list[ToolCallMade] = []
        for made in self._transfers:
            target = self._speaker.transfers[made.call.name].target
            reason = None
            if self._oversight is not None:
                reason = self._oversight.refuse_transfer(self._speaker.name, target)
            if reason is None:
                allowed.append(made)
            else:
                refused.append(Ended(made.call, f"Error: {reason}", reason))
        return refused, allowed


def distinct(calls: Sequence[ToolCallMade], used: Collection[str]) -> list[ToolCallMade]:
    """The calls, each with an id that no other call of the conversation has."""
    seen = set(used)
    result: list[ToolCallMade] = []
    for made in calls:
        call, number = made.call, 1
        name = call.id or "call"
        while not call.id or call.id in seen:
            number += 1
            call = ToolCall(f"{name}_{number}", call.name, call.arguments)
        seen.add(call.id)
        result.append(ToolCallMade(call, made.malformed))
    return result


def described(error: BaseException) -> str:
    """An error as a model reads it; whatever a tool raised, it is short and can be stored."""
    kind = type(error).__name__
    try:
        said = str(error)[:MAX_ERROR].encode("utf-8", "replace").decode()
    except Exception as broken:
        return f"{kind} (its text cannot be had: {type(broken).__name__})"
    if isinstance(error, ToolError):
        return said
    return f"{kind}: {said}" if said else kind
