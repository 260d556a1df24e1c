"""Automatic pruning: hiding the oldest turns in the very change that makes a session too long."""

from __future__ import annotations

from tertulia.drafting import Draft
from tertulia.events import MESSAGE_ADDED, SESSION_PRUNED
from tertulia.stores.base import LogStore, Mark
from tertulia.view import FLOORS, View

_AHEAD = 32


async def trim(store: LogStore, draft: Draft, most: int, keep: int) -> None:
    """Where a draft makes the view longer than `most` messages, hide the oldest down to `keep`.

    Only whole turns are hidden, and never the newest, also where it is longer.
    """
    row = draft.row
    end = row.seq if row.open_turn is None else row.open_turn - 1
    view = await View.at(store, row, end)
    if draft.visible < 0:
        draft.visible = await view.count() + draft.uncounted
    if draft.visible <= most:
        return
    new = [record.turn for record in draft.records if record.type == MESSAGE_ADDED]
    if row.open_turn is not None:
        new = [row.open_turn, *(turn for turn in new if turn != row.open_turn)]
    position, hidden = await _oldest(view, draft.visible - keep, new)
    if not hidden:
        return
    body = {"strategy": "max_messages", "hidden": hidden, "position": position}
    seq = draft.add(SESSION_PRUNED, body)
    draft.marks.append(Mark("floor", 0, position, seq))
    draft.after["marks"] = draft.after.get("marks", row.marks) | FLOORS
    draft.visible -= hidden


async def _oldest(view: View, excess: int, new: list[int]) -> tuple[int, int]:
    """Up to where to hide, and how many messages that hides: whole turns, `excess` at least."""
    window = excess + _AHEAD
    while True:
        turns = [record.turn for record in await view.oldest(window)]
        complete = len(turns) < window
        if complete:
            turns += new
        newest = turns[-1] if complete and turns else None
        hidden = 0
        while hidden < len(turns) and turns[hidden] != newest:
            if hidden >= excess and turns[hidden] != turns[hidden - 1]:
                break
            hidden += 1
        if hidden < len(turns):
            return turns[hidden] - 1, hidden
        window *= 2
