"""Pruning with a model: `summarize_old`, `keep_important`, and the summaries that a sweep makes.

A model takes seconds, and a session is not held for it: what is to be summarised or judged is
read as it stands, the model is asked, and only then is the change made, if what was read still
stands. What was said meanwhile does not matter; what was hidden or brought back does, and then
all begins again. Until the change is made nothing is written, so whatever fails leaves everything
as it was.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

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

T = TypeVar("T")
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


class Wanted(msgspec.Struct, frozen=True):
    """A prune that was asked for."""

    conversation: Conversation
    opening: Opening
    strategy: Strategy
    name: str


class _Seen(msgspec.Struct, frozen=True):
    """What was read before the model was asked."""

    row: SessionRow
    position: int
    """Up to where it is to be hidden, or the last of it."""


class _Since(msgspec.Struct, frozen=True):
    """What became of what was read."""

    stands: bool
    """Whether it is all still shown, but for what automatic pruning hid of it."""
    trimmed: bool = False


async def summarize_old(wanted: Wanted, summarize: Summarizing) -> PruneReport:
    """Put a summary in the place of all but the newest messages."""

    async def attempt() -> PruneReport | None:
        row = await _readable(wanted)
        view = await wanted.conversation.view(row)
        before = await _count(view, row)
        newest = await view.turns(wanted.strategy.keep + 1)
        turns = [record.turn for record in newest]
        position = pruning.cut(turns, wanted.strategy.keep, more=before > len(newest))
        old = [] if position is None else await _older(view, position)
        if position is None or not old:
            return await _as_it_is(wanted, before)
        made = await summarize(old)
        return await _commit_summary(wanted, _Seen(row, position), len(old), made)

    return await _until_it_stands(wanted.conversation, attempt)


async def _commit_summary(
    wanted: Wanted, seen: _Seen, old: int, made: Condensed
) -> PruneReport | None:
    async def build(draft: Draft) -> PruneReport | None:
        since = await _since(wanted, seen, draft)
        if not since.stands:
            return None
        now = await wanted.conversation.view(draft.row)
        gone = len(await _older(now, seen.position)) if since.trimmed else old
        total = await _count(now, draft.row) + draft.uncounted
        body = {"strategy": wanted.name, "hidden": gone, "position": seen.position}
        _put_summary(draft, {**body, "summary": made.text, **made.spent.body()})
        draft.visible = total - gone + 1
        return PruneReport(
            strategy=wanted.name,
            hidden=gone,
            kept=total - gone,
            before=total,
            after=draft.visible,
            position=seen.position,
            summary=made.text,
        )

    return await wanted.conversation.append(wanted.opening, build)


async def keep_important(wanted: Wanted, judge: Judging) -> PruneReport:
    """Hide the older messages that are not important."""
    keep = wanted.strategy.keep

    async def attempt() -> PruneReport | None:
        row = await _readable(wanted)
        view = await wanted.conversation.view(row)
        records = await view.turns()
        turns, seqs = [record.turn for record in records], [record.seq for record in records]
        old = pruning.unjudged(turns, keep)
        judged = await judge([message_of(record, row.id) for record in records[:old]])
        important = [*judged.important, *[True] * (len(records) - old)]
        stretches = pruning.holes(turns, seqs, important, keep)
        if not stretches:
            return await _as_it_is(wanted, await _count(view, row))
        return await _commit_holes(wanted, _Seen(row, stretches[-1][1]), seqs, stretches, judged)

    return await _until_it_stands(wanted.conversation, attempt)


async def _commit_holes(
    wanted: Wanted,
    seen: _Seen,
    shown: list[int],
    stretches: list[tuple[int, int]],
    judged: Judged,
) -> PruneReport | None:
    async def build(draft: Draft) -> PruneReport | None:
        since = await _since(wanted, seen, draft)
        if not since.stands:
            return None
        now = await wanted.conversation.view(draft.row)
        left = [record.seq for record in await now.turns()] if since.trimmed else shown
        gone = sum(any(low < seq <= high for low, high in stretches) for seq in left)
        total = await _count(now, draft.row) + draft.uncounted
        body = {"strategy": wanted.name, "hidden": gone, "stretches": stretches}
        seq = draft.add(events.SESSION_PRUNED, {**body, **judged.spent.body()}, actor="app")
        draft.marks.extend(Mark("hole", low, high, seq) for low, high in stretches)
        _mark(draft, HOLES)
        draft.visible = total - gone
        return _report(wanted.name, gone, total)

    return await wanted.conversation.append(wanted.opening, build)


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
        return await _settle(conversation, row, stands, made)

    await _until_it_stands(conversation, attempt)


async def _settle(
    conversation: Conversation, row: SessionRow, stands: Standing, made: Condensed
) -> bool | None:
    """Commit the summary of what was hidden before; it is no activity."""
    body: dict[str, Any] = {"strategy": "summarize_old", "hidden": 0, "position": stands.high}
    if made.text:
        body["summary"] = made.text

    async def build(draft: Draft) -> bool | None:
        permit(conversation, draft.row, "prune", draft.now)
        now = await standing(await conversation.view(draft.row))
        if draft.row.uid != row.uid or now.floor != stands.floor:
            return None
        _put_summary(draft, {**body, **made.spent.body()}, actor="runtime")
        draft.quiet = True
        if made.text and stands.summary is None:
            draft.count(1)
        return True

    return await conversation.append(Opening(), build, How(ended=True))


def _put_summary(draft: Draft, body: dict[str, Any], actor: str = "app") -> None:
    seq = draft.add(events.SESSION_PRUNED, body, actor=actor)
    draft.marks.append(Mark("floor", 0, body["position"], seq))
    _mark(draft, FLOORS)
    draft.after["marks"] &= ~UNSUMMARIZED


def _mark(draft: Draft, marks: int) -> None:
    draft.after["marks"] = draft.after.get("marks", draft.row.marks) | marks


async def _readable(wanted: Wanted) -> SessionRow:
    """The row of a session that may be pruned. Raises what a change to it would raise."""
    conversation = wanted.conversation
    row = await conversation.row()
    waits = row is not None and row.open_turn is not None and row.holder is None
    if row is None or row.status == "ended" or waits:
        await conversation.append(wanted.opening, nothing)
    row = await conversation.existing(wanted.opening)
    permit(conversation, row, "prune", conversation.host.clock.now())
    return row


async def _as_it_is(wanted: Wanted, count: int) -> PruneReport:
    """Nothing is to be hidden; what the opening says is stored all the same."""
    await wanted.conversation.append(wanted.opening, nothing)
    return _report(wanted.name, 0, count)


async def _since(wanted: Wanted, seen: _Seen, draft: Draft) -> _Since:
    """What has become of what was read. Raises RetentionRefused when it may not be hidden now."""
    row = seen.row
    permit(wanted.conversation, draft.row, "prune", draft.now)
    if draft.row.uid != row.uid:
        return _Since(False)
    new = Segment(row.key, row.seq, draft.row.seq)
    trimmed = False
    for record in await wanted.conversation.host.store.records([new], types=_CHANGES):
        body = body_of(record)
        trimmed = body.get("strategy") == TRIMMED and body.get("position", 0) <= seen.position
        if not trimmed:
            return _Since(False)
    return _Since(True, trimmed)


async def _until_it_stands(
    conversation: Conversation, attempt: Callable[[], Awaitable[T | None]]
) -> T:
    for _ in range(MAX_TRIES):
        done = await attempt()
        if done is not None:
            return done
    raise SessionBusy(
        f"session {conversation.id!r} was pruned, rewound or cleared {MAX_TRIES} times while it "
        "was being summarised or judged; nothing was hidden, so prune it when it rests",
        session_id=conversation.id,
    )


async def _older(view: View, position: int) -> list[Message]:
    """The messages that are shown up to a position, after what stands for those before them.

    Empty where there is nothing to summarise but a summary.
    """
    summary = await view.summary()
    older = await view.messages(before=position + 1)
    if summary is None:
        return older
    said = [message for message in older if message.id != summary.id]
    return [summary, *said] if said else []


async def _count(view: View, row: SessionRow) -> int:
    return row.visible if row.visible >= 0 else await view.count()


def _report(name: str, hidden: int, before: int) -> PruneReport:
    kept = before - hidden
    return PruneReport(strategy=name, hidden=hidden, kept=kept, before=before, after=kept)
