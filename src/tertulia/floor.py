"""The floor: which agent of a conversation speaks. The row of the session and its log say so."""

from __future__ import annotations

import msgspec

from tertulia import events
from tertulia.codec import body_of
from tertulia.drafting import Draft
from tertulia.stores.base import Details, LogStore
from tertulia.view import View

_NEWEST = 512
"""How many turns and handoffs are looked at for a floor of the past."""
_CHANGES = (
    events.TURN_STARTED,
    events.HANDOFF,
    events.TURN_FAILED,
    events.TURN_ABANDONED,
)


NOBODY = ""
"""The floor after a rewind to where nobody had it yet."""


def floor_of(draft: Draft) -> str | None:
    """Who has the floor as a draft leaves it."""
    details: Details = draft.after.get("details", draft.row.details)
    return details.agent


def give_floor(draft: Draft, agent: str | None) -> None:
    """Note the agent that speaks as the one that has the floor; None changes nothing."""
    if agent is not None:
        set_floor(draft, agent)


def set_floor(draft: Draft, agent: str | None) -> None:
    """Note who has the floor; None is nobody."""
    details: Details = draft.after.get("details", draft.row.details)
    if details.agent != agent:
        draft.after["details"] = msgspec.structs.replace(details, agent=agent)


async def floor_at(store: LogStore, view: View) -> str:
    """Who had the floor where a view stands, after the turns that were kept; else `NOBODY`."""
    left, hidden = _NEWEST, set[int]()
    for segment in await view.chain():
        found = await store.records([segment], left, newest=True, types=_CHANGES)
        for record in reversed(found):
            body = body_of(record)
            if record.type in (events.TURN_FAILED, events.TURN_ABANDONED):
                if body.get("outcome") == "hidden":
                    hidden.add(record.turn)
                continue
            agent = body.get("to" if record.type == events.HANDOFF else "agent")
            if agent is not None and record.turn not in hidden:
                return str(agent)
        left -= len(found)
        if left <= 0:
            break
    return NOBODY
