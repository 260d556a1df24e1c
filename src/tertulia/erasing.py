"""Erasing for good what has been hidden for long enough that hiding cannot be undone any more."""

from __future__ import annotations

from tertulia.conversation import Conversation, How
from tertulia.drafting import Draft
from tertulia.events import SESSION_ERASED
from tertulia.opening import Opening
from tertulia.retention import Retention
from tertulia.stores.base import LogStore, Mark, MarkKind, Segment, SessionRow
from tertulia.view import ERASABLE, FLOORS, HIDDEN_GRACE, HOLES, View

_EVERYTHING = 2**62
_HOLES = 1_000
"""Holes that one sweep looks at."""


async def hidden(store: LogStore, row: SessionRow, policy: Retention, now: int) -> list[Segment]:
    """The stretches of a session's own log that no current view has shown for the grace.

    None where retention does not prune by itself, a hold or `immutable` stands, or a fork began
    before they were hidden.
    """
    held = policy.legal_hold or row.details.hold is not None
    if held or policy.immutable or not policy.auto_prune or not row.marks & (FLOORS | HOLES):
        return []
    until = await _position_at(store, row, now - HIDDEN_GRACE)
    marks = [*await _marks(store, row, until, "floor", 1)]
    marks += await _marks(store, row, until, "hole", _HOLES)
    forks = [child.base for child in await store.children(row.key) if child.status != "deleted"]
    segments = [
        Segment(row.key, max(mark.low, row.base), mark.high)
        for mark in marks
        if mark.high > row.base and all(base >= mark.at for base in forks)
    ]
    return [segment for segment in segments if await _has_bodies(store, segment)]


async def erase(conversation: Conversation, policy: Retention) -> int:
    """Erase what `hidden` gives; how many bodies that were."""
    store, clock = conversation.host.store, conversation.host.clock
    row = await conversation.row()
    if row is None:
        return 0
    segments = await hidden(store, row, policy, clock.now())
    bodies = await store.erase(segments, ERASABLE)
    if bodies:
        body = {"position": max(segment.high for segment in segments), "bodies": bodies}

        async def build(draft: Draft) -> None:
            draft.add(SESSION_ERASED, body)
            draft.quiet = True

        await conversation.append(Opening(), build, How(ended=True, suspended="keep"))
    return bodies


async def _has_bodies(store: LogStore, segment: Segment) -> bool:
    """Whether there is still something to erase: stretches are erased whole."""
    newest = await store.records([segment], 1, newest=True, types=ERASABLE)
    return bool(newest) and newest[0].body is not None


async def _marks(
    store: LogStore, row: SessionRow, until: int, kind: MarkKind, limit: int
) -> list[Mark]:
    """Marks of the current view that were made up to a position, newest first."""
    view = await View.at(store, row, row.seq)
    for segment in await view.chain():
        if segment.session == row.key and until > segment.low:
            part = Segment(row.key, segment.low, min(segment.high, until))
            found = await store.marks(part, kind, below=_EVERYTHING, limit=limit)
            if found:
                return found
    return []


async def _position_at(store: LogStore, row: SessionRow, time: int) -> int:
    """The position of the newest own event at or before a time."""
    low, high = row.base, row.seq
    while low < high:
        middle = (low + high + 1) // 2
        record = (await store.records([Segment(row.key, middle - 1, middle)]))[0]
        if record.time <= time:
            low = middle
        else:
            high = middle - 1
    return low
