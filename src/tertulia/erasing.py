"""Erasing for good what has been hidden for long enough that hiding cannot be undone any more."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec

from tertulia import events
from tertulia.codec import body_of
from tertulia.conversation import Conversation, How
from tertulia.drafting import Draft
from tertulia.floor import Floors, floors_in
from tertulia.opening import Opening
from tertulia.retention import Retention
from tertulia.stores.base import LogStore, Mark, Segment, SessionRow
from tertulia.view import FLOORS, HIDDEN_GRACE, HOLES, View

_KEPT = frozenset(
    (
        events.TURN_ABANDONED,
        events.INPUT_RECEIVED,
        events.INPUT_WITHDRAWN,
        events.STATE_SET,
        events.STATE_DELETED,
        events.SESSION_CREATED,
        events.SESSION_FORKED,
        events.SESSION_REWOUND,
        events.SESSION_CLEARED,
        events.SESSION_ERASED,
        events.SESSION_ENDED,
        events.SESSION_REOPENED,
        events.SESSION_CHANGED,
        events.RETENTION_SET,
        events.HOLD_SET,
        events.HOLD_RELEASED,
        events.USAGE,
    )
)
"""Events whose bodies stay: they have no word of the conversation, which is what is hidden, but
counts, state, and what was done to the session."""
ERASABLE = (*(kind for kind in events.EVENT_TYPES if kind not in _KEPT), "app.*")
"""Events whose bodies go when nothing shows them any more."""
_EVERYTHING = 2**62
_HOLES = 1_000
"""Holes that one sweep erases; the others are left to the next one."""
_FLOORS = 512
"""Changes of the floor that one erasure notes."""
_PAGE = 64
_SUMMARIES = (events.SESSION_PRUNED,)
_IN_HOLES = tuple(kind for kind in ERASABLE if kind not in _SUMMARIES)
"""What goes in a hole; a summary there may stand for what is below a floor."""


class Hidden(msgspec.Struct, frozen=True):
    """Stretches of a session's own log that no current view has shown for the grace."""

    floor: Segment | None = None
    """Below the newest prune or clear that is so old."""
    holes: tuple[Segment, ...] = ()
    summaries: tuple[Segment, ...] = ()
    """Where the prunes are whose summaries that newest one has replaced."""

    def __bool__(self) -> bool:
        return bool(self.floor or self.holes or self.summaries)

    @property
    def messages(self) -> list[Segment]:
        """The stretches whose messages go."""
        return [*self.holes] if self.floor is None else [self.floor, *self.holes]


async def hidden(store: LogStore, row: SessionRow, policy: Retention, now: int) -> Hidden:
    """What is to be erased of a session's own log.

    Nothing where retention does not prune by itself, a hold or `immutable` stands, or a fork
    began before it was hidden. An open turn is left alone.
    """
    held = policy.legal_hold or row.details.hold is not None
    if held or policy.immutable or not policy.auto_prune or not row.marks & (FLOORS | HOLES):
        return Hidden()
    until = await _position_at(store, row, now - HIDDEN_GRACE)
    parts: list[Segment] = []
    view = await View.at(store, row, row.seq)
    async for page in view.pages():
        parts += [
            Segment(row.key, part.low, min(part.high, until))
            for part in page
            if part.session == row.key and part.low < until
        ]
    forks = [child.base for child in await store.children(row.key) if child.status != "deleted"]
    holes = await _holes(store, row, parts, forks)
    for index, part in enumerate(parts):
        for mark in await store.marks(part, "floor", below=_EVERYTHING, limit=1):
            older = [Segment(row.key, part.low, mark.at - 1), *parts[index + 1 :]]
            return await _below(store, row, mark, older, holes) if _may_go(mark, forks) else holes
    return holes


async def erase(conversation: Conversation, policy: Retention) -> int:
    """Erase what `hidden` gives; how many bodies that were."""
    store, clock = conversation.host.store, conversation.host.clock
    row = await conversation.row()
    if row is None:
        return 0
    found = await hidden(store, row, policy, clock.now())
    floors = await _floors(store, found) if row.details.agent is not None else []
    bodies = 0
    if found.floor is not None:
        bodies += await store.erase([found.floor], ERASABLE)
    if found.holes:
        bodies += await store.erase(found.holes, _IN_HOLES)
    if found.summaries:
        bodies += await store.erase(found.summaries, _SUMMARIES)
    if bodies or found.floor is not None:
        body = _note(found, bodies, floors)

        async def build(draft: Draft) -> None:
            draft.add(events.SESSION_ERASED, body)
            draft.quiet = True

        await conversation.append(Opening(), build, How(ended=True, suspended="keep"))
    return bodies


def _note(found: Hidden, bodies: int, floors: Floors) -> dict[str, Any]:
    """What the event says of an erasure."""
    body: dict[str, Any] = {"bodies": bodies}
    if found.messages:
        body["position"] = max(segment.high for segment in found.messages)
    if found.floor is not None:
        body["floor"] = found.floor.high
    if floors:
        body["floors"] = floors
    return body


async def _floors(store: LogStore, found: Hidden) -> Floors:
    """Who had the floor in what is to be erased: an earlier position may still be asked for it."""
    floors = [each for segment in found.messages for each in await floors_in(store, segment)]
    return sorted(floors, key=lambda noted: noted[0])[-_FLOORS:]


def _may_go(mark: Mark, forks: Sequence[int]) -> bool:
    """Whether no fork shows what a mark has hidden."""
    return all(base >= mark.at for base in forks)


async def _below(
    store: LogStore, row: SessionRow, mark: Mark, older: list[Segment], holes: Hidden
) -> Hidden:
    """What lies below a floor, and the summaries that it replaced."""
    summaries = [part for part in older if await _has_summary(store, part)]
    high = _settled(row, mark.high)
    low = max(row.base, await _erased_to(store, row))
    floor = Segment(row.key, low, high) if low < high else None
    return msgspec.structs.replace(holes, floor=floor, summaries=tuple(summaries))


def _settled(row: SessionRow, position: int) -> int:
    """The position, or, where it lies in the open turn, the position before that turn."""
    return position if row.open_turn is None else min(position, row.open_turn - 1)


async def _has_summary(store: LogStore, part: Segment) -> bool:
    newest = await store.records([part], 1, newest=True, types=_SUMMARIES)
    return bool(newest) and newest[0].body is not None


async def _erased_to(store: LogStore, row: SessionRow) -> int:
    """Up to where everything of the own log was erased already, as was noted then."""
    notes = await store.records(
        [Segment(row.key, row.base, row.seq)], types=[events.SESSION_ERASED]
    )
    return max((body_of(note).get("floor", 0) for note in notes), default=0)


async def _holes(
    store: LogStore, row: SessionRow, parts: Sequence[Segment], forks: Sequence[int]
) -> Hidden:
    """The holes that were not erased, each with the rest of its last turn."""
    found: list[Segment] = []
    async for mark in _marks(store, parts if row.marks & HOLES else ()):
        if mark.high <= row.base or not _may_go(mark, forks):
            continue
        last = (await store.records([Segment(row.key, mark.high - 1, mark.high)]))[0]
        if last.body is None:
            continue
        high = await _end_of_turn(store, row, mark.high, last.turn)
        found.append(Segment(row.key, max(mark.low, row.base), _settled(row, high)))
        if len(found) == _HOLES:
            break
    return Hidden(holes=tuple(found))


async def _marks(store: LogStore, parts: Sequence[Segment]) -> AsyncIterator[Mark]:
    """All holes that were made in some parts of a log, a page at a time."""
    for part in parts:
        below = _EVERYTHING
        while below:
            page = await store.marks(part, "hole", below=below, limit=_PAGE)
            for mark in page:
                yield mark
            below = page[-1].high - 1 if len(page) == _PAGE else 0


async def _end_of_turn(store: LogStore, row: SessionRow, position: int, turn: int) -> int:
    """The position of the last event of a turn, of which one event is known."""
    while True:
        page = await store.records([Segment(row.key, position, row.seq)], _PAGE)
        for record in page:
            if record.turn != turn:
                return position
            position = record.seq
        if len(page) < _PAGE:
            return position


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
