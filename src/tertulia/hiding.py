"""Prune and clear: older messages are hidden from the view and stay in the log."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Protocol

from tertulia import events, pruning
from tertulia.branching import outside_turn, permit
from tertulia.codec import message_of
from tertulia.conversation import Conversation
from tertulia.drafting import Draft
from tertulia.errors import ConfigurationError
from tertulia.messages import Message
from tertulia.opening import Opening
from tertulia.pruning import PruneReport, Strategy
from tertulia.scoped import applied
from tertulia.stores.base import Mark
from tertulia.view import FLOORS, HOLES, View


class Runs(Protocol):
    """An agent, as far as pruning needs one."""

    def run(self, request: str) -> Awaitable[Any]:
        """Answer a request; the answer has a `text`."""
        ...


Summarize = Callable[[list[Message]], Any] | Runs
Judge = Callable[[Message], Any] | Runs


async def clear(conversation: Conversation, opening: Opening) -> int:
    """Hide all messages; state, system prompt and metadata stay. How many were hidden."""
    outside_turn(conversation, "clear")

    async def build(draft: Draft) -> int:
        permit(conversation, draft.row, "clear", draft.now)
        draft.close_calls()
        hidden = max(draft.visible, 0)
        position = draft.seq
        seq = draft.add(events.SESSION_CLEARED, {"position": position}, actor="app")
        _floor(draft, position, seq)
        draft.visible = 0
        return hidden

    return await conversation.append(opening, build)


async def prune(
    conversation: Conversation,
    opening: Opening,
    strategy: Strategy,
    name: str,
    *,
    summarize: Summarize | None = None,
    judge: Judge | None = None,
) -> PruneReport:
    """Hide older messages as a strategy says, cutting only between turns.

    Raises RetentionRefused, and ConfigurationError when a strategy lacks its callable. What the
    callables raise is raised, and then nothing was hidden.
    """
    outside_turn(conversation, "prune")
    if strategy.kind == "summarize_old" and summarize is None:
        raise ConfigurationError(
            "summarize_old needs summarize=: a callable that gets the old messages and gives "
            "text, or an agent"
        )
    if strategy.kind == "keep_important" and judge is None:
        raise ConfigurationError(
            "keep_important needs judge=: a callable that gets a message and gives true or false, "
            "or an agent"
        )

    async def build(draft: Draft) -> PruneReport:
        permit(conversation, draft.row, "prune", draft.now)
        if strategy.kind == "keep_important" and judge is not None:
            return await _keep_important(conversation, draft, strategy, name, judge)
        return await _keep_last(conversation, draft, strategy, name, summarize)

    return await conversation.append(opening, build)


async def _keep_last(
    conversation: Conversation,
    draft: Draft,
    strategy: Strategy,
    name: str,
    summarize: Summarize | None,
) -> PruneReport:
    view = await _view(conversation, draft)
    before = draft.visible if draft.visible >= 0 else await view.count()
    newest = await view.turns(strategy.keep + 1)
    position = pruning.cut(
        [record.turn for record in newest], strategy.keep, more=before > len(newest)
    )
    if position is None:
        return _report(name, draft, 0, before, None, None)
    kept = await _shown_after(view, position, newest, before)
    summary: str | None = None
    if summarize is not None and strategy.kind == "summarize_old":
        old = await view.messages(before=position + 1)
        summary = await _summary(summarize, old)
        kept += 1
    body: dict[str, Any] = {"strategy": name, "hidden": before - kept, "position": position}
    if summary is not None:
        body["summary"] = summary
    seq = draft.add(events.SESSION_PRUNED, body, actor="app")
    _floor(draft, position, seq)
    draft.visible = kept
    return _report(name, draft, before - kept, before, position, summary)


async def _summary(summarize: Summarize, old: list[Message]) -> str:
    if callable(summarize):
        return str(await applied(summarize, old))
    told = "\n".join(f"{message.role}: {message.text}" for message in old)
    answer = await summarize.run(f"Summarise this conversation in a few sentences:\n\n{told}")
    return str(answer.text)


async def _judged(judge: Judge, message: Message) -> bool:
    if callable(judge):
        return bool(await applied(judge, message))
    question = "Is this message important for the rest of its conversation? Answer yes or no."
    answer = await judge.run(f"{question}\n\n{message.role}: {message.text}")
    return str(answer.text).strip().lower().startswith("yes")


async def _shown_after(view: View, position: int, newest: list[Any], before: int) -> int:
    """How many messages stay above a cut."""
    above = [record for record in newest if record.seq > position]
    if len(above) < len(newest) or len(newest) == before:
        return len(above)
    return sum(1 for record in await view.turns() if record.seq > position)


async def _keep_important(
    conversation: Conversation, draft: Draft, strategy: Strategy, name: str, judge: Judge
) -> PruneReport:
    view = await _view(conversation, draft)
    records = await view.turns()
    row = draft.row
    important = [await _judged(judge, message_of(record, row.id)) for record in records]
    stretches = pruning.holes(
        [record.turn for record in records],
        [record.seq for record in records],
        important,
        strategy.keep,
    )
    hidden = sum(1 for record in records if _inside(record.seq, stretches))
    if not hidden:
        return _report(name, draft, 0, len(records), None, None)
    seq = draft.add(
        events.SESSION_PRUNED,
        {"strategy": name, "hidden": hidden, "stretches": stretches},
        actor="app",
    )
    draft.marks.extend(Mark("hole", low, high, seq) for low, high in stretches)
    draft.after["marks"] = draft.after.get("marks", draft.row.marks) | HOLES
    draft.visible = len(records) - hidden
    return _report(name, draft, hidden, len(records), None, None)


def _inside(seq: int, stretches: Iterable[tuple[int, int]]) -> bool:
    return any(low < seq <= high for low, high in stretches)


async def _view(conversation: Conversation, draft: Draft) -> View:
    end = draft.row.seq if draft.row.open_turn is None else draft.row.open_turn - 1
    return await View.at(conversation.host.store, draft.row, end)


def _floor(draft: Draft, position: int, seq: int) -> None:
    draft.marks.append(Mark("floor", 0, position, seq))
    draft.after["marks"] = draft.after.get("marks", draft.row.marks) | FLOORS


def _report(
    name: str,
    draft: Draft,
    hidden: int,
    before: int,
    position: int | None,
    summary: str | None,
) -> PruneReport:
    return PruneReport(
        strategy=name,
        hidden=hidden,
        kept=before - hidden,
        before=before,
        after=before - hidden,
        position=position,
        summary=summary,
    )
