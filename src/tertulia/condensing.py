"""Pruning with a model: `summarize_old`, `keep_important`, and the summaries that a sweep makes.

A model takes seconds, and a session is not held for it: what is to be summarised or judged is
read as it stands, the model is asked, and only then is the change made, if what was read still
stands. What was said meanwhile does not matter; what was hidden or brought back does, and then
all begins again. Until the change is made nothing is written, so whatever fails leaves everything
as it was.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from tertulia import events, pruning
from tertulia.branching import permit
from tertulia.codec import body_of, message_of
from tertulia.conversation import Conversation, How, nothing
from tertulia.drafting import Draft
from tertulia.errors import SessionBusy
from tertulia.host import Condenser
from tertulia.messages import Message
from tertulia.opening import Opening
from tertulia.pruning import Condensed, Judged, PruneReport, Strategy
from tertulia.stores.base import Mark, Segment, SessionRow
from tertulia.trimming import TRIMMED, Standing, standing
from tertulia.view import FLOORS, HOLES, UNSUMMARIZED, View

MAX_TRIES = 5
"""How often a model is asked anew because what it had read was changed meanwhile."""
_CHANGES = (
    events.SESSION_REWOUND,
    events.SESSION_PRUNED,
    events.SESSION_CLEARED,
    events.SESSION_ERASED,
    events.SESSION_ENDED,
)

Summarizing = Callable[[list[Message]], Awaitable[Condensed]]
Judging = Callable[[list[Message]], Awaitable[Judged]]


class _Since(msgspec.Struct, frozen=True):
    """What happened to what was read."""

    stands: bool
    """Whether it is all still shown, but for what automatic pruning hid of it."""
    trimmed: bool = False


async def summarize_old(
    conversation: Conversation,
    opening: Opening,
    strategy: Strategy,
    name: str,
    summarize: Summarizing,
) -> PruneReport:
    """Put a summary in the place of all but the newest messages."""

    async def attempt() -> PruneReport | None:
        row = await _readable(conversation, opening)
        view = await conversation.view(row)
        newest = await view.turns(strategy.keep + 1)
        before = await _count(view, row)
        position = pruning.cut(
            [record.turn for record in newest], strategy.keep, more=before > len(newest)
        )
        if position is None:
            return await _as_it_is(conversation, opening, name, before)
        old = await view.messages(before=position + 1)
        made = await summarize(old)

        async def build(draft: Draft) -> PruneReport | None:
            permit(conversation, draft.row, "prune", draft.now)
            since = await _since(conversation, row, draft, position)
            if not since.stands:
                return None
            now = await conversation.view(draft.row)
            gone = len(await now.messages(before=position + 1)) if since.trimmed else len(old)
            total = await _count(now, draft.row) + draft.uncounted
            body = {"strategy": name, "hidden": gone, "position": position, "summary": made.text}
            _put_summary(draft, position, {**body, **made.spent.body()})
            draft.visible = total - gone + 1
            return PruneReport(
                strategy=name,
                hidden=gone,
                kept=total - gone,
                before=total,
                after=draft.visible,
                position=position,
                summary=made.text,
            )

        return await conversation.append(opening, build)

    return await _until_it_stands(conversation, attempt)


async def keep_important(
    conversation: Conversation,
    opening: Opening,
    strategy: Strategy,
    name: str,
    judge: Judging,
) -> PruneReport:
    """Hide the older messages that are not important."""

    async def attempt() -> PruneReport | None:
        row = await _readable(conversation, opening)
        view = await conversation.view(row)
        records = await view.turns()
        turns = [record.turn for record in records]
        old = pruning.unjudged(turns, strategy.keep)
        judged = await judge([message_of(record, row.id) for record in records[:old]])
        important = [*judged.important, *[True] * (len(records) - old)]
        seqs = [record.seq for record in records]
        stretches = pruning.holes(turns, seqs, important, strategy.keep)
        if not stretches:
            return await _as_it_is(conversation, opening, name, await _count(view, row))
        hidden = _within(seqs, stretches)

        async def build(draft: Draft) -> PruneReport | None:
            permit(conversation, draft.row, "prune", draft.now)
            since = await _since(conversation, row, draft, stretches[-1][1])
            if not since.stands:
                return None
            now = await conversation.view(draft.row)
            shown = [record.seq for record in await now.turns()] if since.trimmed else []
            gone = _within(shown, stretches) if since.trimmed else hidden
            total = await _count(now, draft.row) + draft.uncounted
            body = {"strategy": name, "hidden": gone, "stretches": stretches}
            seq = draft.add(events.SESSION_PRUNED, {**body, **judged.spent.body()}, actor="app")
            draft.marks.extend(Mark("hole", low, high, seq) for low, high in stretches)
            _mark(draft, HOLES)
            draft.visible = total - gone
            return _report(name, gone, total)

        return await conversation.append(opening, build)

    return await _until_it_stands(conversation, attempt)


async def unsummarized(conversation: Conversation, row: SessionRow) -> Standing | None:
    """What stands for messages that automatic pruning has hidden and nobody has summarised."""
    if not row.marks & UNSUMMARIZED:
        return None
    stands = await standing(await conversation.view(row))
    return stands if stands.upto < stands.high else None


async def summarize_hidden(conversation: Conversation, condenser: Condenser) -> None:
    """Summarise what automatic pruning has hidden, on top of the summary that is there.

    Raises ModelError, RetentionRefused, SessionBusy; then everything is as it was.
    """

    async def attempt() -> bool | None:
        row = await conversation.row()
        stands = None if row is None else await unsummarized(conversation, row)
        if row is None or stands is None:
            return True
        view = await conversation.view(row)
        records = await view.stretch(stands.upto, stands.high)
        hidden = [message_of(record, row.id) for record in records if record.body is not None]
        made = await condenser.summarize(hidden, stands.summary)

        async def build(draft: Draft) -> bool | None:
            permit(conversation, draft.row, "prune", draft.now)
            now = await standing(await conversation.view(draft.row))
            if draft.row.uid != row.uid or now.floor != stands.floor:
                return None
            _settle(draft, stands, made)
            return True

        return await conversation.append(Opening(), build, How(ended=True))

    await _until_it_stands(conversation, attempt)


def _settle(draft: Draft, stands: Standing, made: Condensed) -> None:
    """Draft the summary of what was hidden before; it is no activity."""
    body: dict[str, Any] = {"strategy": "summarize_old", "hidden": 0, "position": stands.high}
    if made.text:
        body["summary"] = made.text
    _put_summary(draft, stands.high, {**body, **made.spent.body()}, actor="runtime")
    draft.quiet = True
    if made.text and stands.summary is None:
        draft.uncounted += 1
        draft.visible += 1 if draft.visible >= 0 else 0


def _put_summary(draft: Draft, position: int, body: dict[str, Any], actor: str = "app") -> None:
    seq = draft.add(events.SESSION_PRUNED, body, actor=actor)
    draft.marks.append(Mark("floor", 0, position, seq))
    _mark(draft, FLOORS)
    draft.after["marks"] &= ~UNSUMMARIZED


def _mark(draft: Draft, marks: int) -> None:
    draft.after["marks"] = draft.after.get("marks", draft.row.marks) | marks


async def _readable(conversation: Conversation, opening: Opening) -> SessionRow:
    """The row of a session that may be pruned. Raises what a change to it would raise."""
    row = await conversation.row()
    waits = row is not None and row.open_turn is not None and row.holder is None
    if row is None or row.status == "ended" or waits:
        await conversation.append(opening, nothing)
    row = await conversation.existing(opening)
    permit(conversation, row, "prune", conversation.host.clock.now())
    return row


async def _as_it_is(
    conversation: Conversation, opening: Opening, name: str, count: int
) -> PruneReport:
    """Nothing is to be hidden; what the opening says is stored all the same."""
    await conversation.append(opening, nothing)
    return _report(name, 0, count)


async def _since(
    conversation: Conversation, row: SessionRow, draft: Draft, position: int
) -> _Since:
    """What has happened, since `row` was read, to what it showed up to a position."""
    if draft.row.uid != row.uid:
        return _Since(False)
    new = Segment(row.key, row.seq, draft.row.seq)
    trimmed = False
    for record in await conversation.host.store.records([new], types=_CHANGES):
        body = body_of(record)
        trimmed = body.get("strategy") == TRIMMED and body.get("position", 0) <= position
        if not trimmed:
            return _Since(False)
    return _Since(True, trimmed)


async def _until_it_stands(
    conversation: Conversation, attempt: Callable[[], Awaitable[Any]]
) -> Any:
    for _ in range(MAX_TRIES):
        done = await attempt()
        if done is not None:
            return done
    raise SessionBusy(
        f"session {conversation.id!r} was pruned, rewound or cleared {MAX_TRIES} times while it "
        "was being summarised or judged; nothing was hidden, so prune it when it rests",
        session_id=conversation.id,
    )


async def _count(view: View, row: SessionRow) -> int:
    return row.visible if row.visible >= 0 else await view.count()


def _within(seqs: list[int], stretches: list[tuple[int, int]]) -> int:
    return sum(any(low < seq <= high for low, high in stretches) for seq in seqs)


def _report(name: str, hidden: int, before: int) -> PruneReport:
    kept = before - hidden
    return PruneReport(strategy=name, hidden=hidden, kept=kept, before=before, after=kept)
