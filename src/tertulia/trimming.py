"""Automatic pruning: hiding the oldest turns in the very change that makes a session too long."""

from __future__ import annotations

from tertulia.drafting import Draft
from tertulia.events import MESSAGE_ADDED, SESSION_PRUNED
from tertulia.stores.base import LogStore, Mark
from tertulia.view import FLOORS, View

_AHEAD = 32


async def trim(store: LogStore, draft: Draft, keep: int) -> None:
    """Hide the oldest turns, so that at most `keep` messages are shown after this draft.

    The turn that the draft ends with is never hidden, also where it is longer.
    """
    row = draft.row
    new = [record.turn for record in draft.records if record.type == MESSAGE_ADDED]
    end = row.seq if row.open_turn is None else row.open_turn - 1
    view = await View.at(store, row, end)
    if draft.visible < 0:
        counted = await view.count()
        draft.visible = counted + draft.uncounted
    excess = draft.visible - keep
    if excess <= 0:
        return
    newest = row.open_turn or (new[0] if new else draft.seq + 1)
    position, hidden = await _oldest(view, excess, newest)
    if not hidden:
        return
    seq = draft.add(
        SESSION_PRUNED, {"strategy": "max_messages", "hidden": hidden, "position": position}
    )
    draft.marks.append(Mark("floor", 0, position, seq))
    draft.after["marks"] = draft.after.get("marks", row.marks) | FLOORS
    draft.visible -= hidden


async def _oldest(view: View, excess: int, newest: int) -> tuple[int, int]:
    """Up to where to hide, and how many messages that hides: whole turns, `excess` at least."""
    window = excess + _AHEAD
    while True:
        turns = [record.turn for record in await view.oldest(window)]
        hidden = 0
        while hidden < len(turns) and (
            hidden < excess or (hidden > 0 and turns[hidden] == turns[hidden - 1])
        ):
            hidden += 1
        if hidden < len(turns):
            return turns[hidden] - 1, hidden
        if len(turns) < window:
            return newest - 1, hidden
        window *= 2
