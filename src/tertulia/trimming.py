"""Automatic pruning: hiding the oldest turns in the very change that makes a session too long."""

from __future__ import annotations

from typing import Any

import msgspec

from tertulia.codec import body_of
from tertulia.drafting import Draft
from tertulia.events import MESSAGE_ADDED, SESSION_PRUNED
from tertulia.retention import Retention
from tertulia.stores.base import LogStore, Mark
from tertulia.view import FLOORS, UNSUMMARIZED, View

_AHEAD = 32
TRIMMED = "max_messages"
"""The strategy in the events of automatic pruning."""


class Standing(msgspec.Struct, frozen=True):
    """What stands for the messages that a view does not show any more."""

    floor: Mark | None
    summary: str | None
    upto: int
    """Up to which position the summary speaks, or nobody wants one."""

    @property
    def high(self) -> int:
        """Up to which position everything is hidden."""
        return 0 if self.floor is None else self.floor.high


async def standing(view: View) -> Standing:
    """What stands for what a view has hidden; one read or two."""
    floor = await view.floor()
    if floor is None:
        return Standing(None, None, 0)
    record = await view.pruned(floor)
    body = {} if record is None else body_of(record)
    return Standing(floor, body.get("summary"), body.get("summarized", floor.high))


async def trim(store: LogStore, draft: Draft, policy: Retention) -> None:
    """Where a draft makes the view longer than `max_messages`, hide the oldest.

    Only whole turns are hidden, and never the newest, also where it is longer. A summary goes
    first, as the oldest; where a sweep makes summaries it stays, and one place is kept for it.
    A change that hides older messages itself is left as it is.
    """
    if any(mark.kind == "floor" for mark in draft.marks):
        return
    most = policy.max_messages or 0
    row = draft.row
    view = await View.at(store, row, row.seq if row.open_turn is None else row.open_turn - 1)
    if draft.visible < 0:
        draft.visible = await view.count() + draft.uncounted
    if draft.visible <= (most - 1 if policy.summarizes else most):
        return
    stands = await standing(view)
    told = stands.summary is not None
    if told and draft.visible <= most:
        return
    gone = 1 if told and not policy.summarizes else 0
    excess = draft.visible - (policy.keep or most) - gone
    position, hidden = await _oldest(view, excess, _new(draft)) if excess > 0 else (stands.high, 0)
    if hidden or gone:
        _hide(draft, policy, stands, max(position, stands.high), hidden + gone)


def _hide(draft: Draft, policy: Retention, stands: Standing, position: int, hidden: int) -> None:
    body: dict[str, Any] = {"strategy": TRIMMED, "hidden": hidden, "position": position}
    marks = FLOORS
    if policy.summarizes:
        marks |= UNSUMMARIZED
        body["summarized"] = stands.upto
        if stands.summary is not None:
            body["summary"] = stands.summary
    seq = draft.add(SESSION_PRUNED, body)
    draft.marks.append(Mark("floor", 0, position, seq))
    draft.after["marks"] = draft.after.get("marks", draft.row.marks) | marks
    draft.visible -= hidden


def _new(draft: Draft) -> list[int]:
    """The turns of the messages that a draft adds to the view."""
    row = draft.row
    new = [record.turn for record in draft.records if record.type == MESSAGE_ADDED]
    if row.open_turn is not None:
        new = [row.open_turn, *(turn for turn in new if turn != row.open_turn)]
    return new


async def _oldest(view: View, excess: int, new: list[int]) -> tuple[int, int]:
    """Up to where to hide, and how many messages that hides: whole turns, `excess` at least."""
    window = excess + _AHEAD
    while True:
        turns = [record.turn for record in await view.oldest(window)]
        complete = len(turns) < window
        if complete:
            turns += new
        if complete and not turns:
            return 0, 0
        newest = turns[-1] if complete else None
        hidden = 0
        while hidden < len(turns) and turns[hidden] != newest:
            if hidden >= excess and turns[hidden] != turns[hidden - 1]:
                break
            hidden += 1
        if hidden < len(turns):
            return turns[hidden] - 1, hidden
        window *= 2
