"""Prune and clear: older messages are hidden from the view and stay in the log."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from tertulia import events, pruning
from tertulia.branching import outside_turn, permit
from tertulia.condensing import Judging, Summarizing, Wanted, keep_important, summarize_old
from tertulia.conversation import Conversation
from tertulia.drafting import Draft
from tertulia.errors import ConfigurationError, InvalidInput
from tertulia.events import Record
from tertulia.host import Condenser
from tertulia.messages import Message
from tertulia.opening import Opening
from tertulia.pruning import Condensed, Judged, PruneReport, Strategy
from tertulia.scoped import applied
from tertulia.stores.base import Mark
from tertulia.turns import own_turn
from tertulia.view import FLOORS, HOLES, View


class Runs(Protocol):
    """An agent, as far as pruning needs one."""

    def run(self, request: str) -> Awaitable[Any]:
        """Answer a request; the answer has a `text`."""
        ...


Summarize = Callable[[list[Message]], Any] | Runs
Judge = Callable[[Message], Any] | Runs


class Callables(msgspec.Struct, frozen=True):
    """What a strategy asks, and the driver of the session, whose model it asks otherwise."""

    summarize: Summarize | None = None
    judge: Judge | None = None
    driver: Any = None


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


async def hide(
    conversation: Conversation,
    opening: Opening,
    seqs: Sequence[int],
    reason: str,
    notes: Sequence[tuple[str, Mapping[str, Any]]] = (),
) -> int:
    """Hide single messages of users, and append events that say why, in one commit; how many.

    It is for what is refused before it was answered, so no retention forbids it: the log keeps
    all. `reason` is the strategy that `session.pruned` names.
    """
    turn = own_turn(conversation)

    async def build(draft: Draft) -> list[int]:
        position = None if turn is None else draft.row.seq
        shown = await _shown(await conversation.view(draft.row, position), seqs)
        for kind, body in notes:
            draft.add(kind, dict(body))
        if shown:
            stretches = [(seq - 1, seq) for seq in shown]
            body = {"strategy": reason, "hidden": len(shown), "stretches": stretches}
            at = draft.add(events.SESSION_PRUNED, body)
            draft.marks.extend(Mark("hole", low, high, at) for low, high in stretches)
            draft.after["marks"] = draft.after.get("marks", draft.row.marks) | HOLES
            draft.count(-sum(seq < (draft.turn or draft.seq) for seq in shown))
        return shown

    if turn is None:
        return len(await conversation.append(opening, build))
    hidden = await turn.append(build)
    turn.trace.messages -= sum(seq >= turn.number for seq in hidden)  # its end counts the others
    return len(hidden)


async def _shown(view: View, seqs: Sequence[int]) -> list[int]:
    """Those of some messages that are shown."""
    low, high = min(seqs), max(seqs)
    shown = {message.seq for message in await view.messages(high - low + 1, before=high + 1)}
    return [seq for seq in seqs if seq in shown]


async def prune(
    conversation: Conversation,
    opening: Opening,
    strategy: Strategy,
    name: str,
    callables: Callables,
) -> PruneReport:
    """Hide older messages as a strategy says, cutting only between turns.

    Raises RetentionRefused, SessionBusy, and ConfigurationError where a model is needed and there
    is none. What a callable or a model raises is raised, and then nothing was hidden.
    """
    outside_turn(conversation, "prune")
    wanted = Wanted(conversation, opening, strategy, name)
    if strategy.kind == "summarize_old":
        return await summarize_old(wanted, _summarizing(conversation, callables))
    if strategy.kind == "keep_important":
        return await keep_important(wanted, _judging(conversation, callables))

    async def build(draft: Draft) -> PruneReport:
        permit(conversation, draft.row, "prune", draft.now)
        return await _keep_last(conversation, draft, strategy.keep, name)

    return await conversation.append(opening, build)


async def _keep_last(conversation: Conversation, draft: Draft, keep: int, name: str) -> PruneReport:
    view = await conversation.view(draft.row)
    before = draft.visible if draft.visible >= 0 else await view.count() + draft.uncounted
    newest = await view.turns(keep + 1)
    position = pruning.cut([record.turn for record in newest], keep, more=before > len(newest))
    if position is None and keep >= len(newest) > 0 and before > keep:
        position = newest[0].turn - 1  # a summary is one too many
    if position is None:
        return _report(name, 0, before, None)
    kept = await _shown_after(view, position, newest, before)
    body = {"strategy": name, "hidden": before - kept, "position": position}
    _floor(draft, position, draft.add(events.SESSION_PRUNED, body, actor="app"))
    draft.visible = kept
    return _report(name, before - kept, before, position)


async def _shown_after(view: View, position: int, newest: list[Record], before: int) -> int:
    """How many messages stay above a cut."""
    above = [record for record in newest if record.seq > position]
    if len(above) < len(newest) or len(newest) == before:
        return len(above)
    return sum(1 for record in await view.turns() if record.seq > position)


def _summarizing(conversation: Conversation, callables: Callables) -> Summarizing:
    """What summarises: a callable, an agent, or the model of the session. It gives text."""
    given = callables.summarize
    if given is None or not callable(given):
        return _condenser(conversation, "summarize", given, callables.driver).summarize

    async def summarize(old: list[Message]) -> Condensed:
        answer = await applied(given, old)
        text = answer if isinstance(answer, str) else getattr(answer, "text", None)
        if not isinstance(text, str) or not text.strip():
            raise InvalidInput(
                f"summarize= gave {answer!r}; it has to give text that is not empty. Nothing was "
                "hidden"
            )
        return Condensed(text)

    return summarize


def _judging(conversation: Conversation, callables: Callables) -> Judging:
    """What judges: a callable, an agent, or the model of the session."""
    given = callables.judge
    if given is None or not callable(given):
        return _condenser(conversation, "judge", given, callables.driver).judge

    async def judge(messages: list[Message]) -> Judged:
        return Judged([bool(await applied(given, message)) for message in messages])

    return judge


def _condenser(conversation: Conversation, name: str, agent: Runs | None, driver: Any) -> Condenser:
    try:
        return conversation.host.condenser(driver, agent)
    except ConfigurationError as error:
        raise ConfigurationError(
            f"pruning without {name}= asks a model: give the session an agent, or a callable as "
            f"{name}=; {error}"
        ) from error


def _floor(draft: Draft, position: int, seq: int) -> None:
    draft.marks.append(Mark("floor", 0, position, seq))
    draft.after["marks"] = draft.after.get("marks", draft.row.marks) | FLOORS


def _report(name: str, hidden: int, before: int, position: int | None) -> PruneReport:
    kept = before - hidden
    return PruneReport(
        strategy=name, hidden=hidden, kept=kept, before=before, after=kept, position=position
    )
