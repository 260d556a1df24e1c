"""The floor: which agent of a conversation speaks. The row of the session and its log say so."""

from __future__ import annotations

from bisect import bisect_right

import msgspec

from tertulia import events
from tertulia.codec import body_of
from tertulia.drafting import Draft
from tertulia.events import Record
from tertulia.stores.base import Details, LogStore, Segment
from tertulia.view import View

_NEWEST = 512
"""How many turns and handoffs are looked at for a floor of the past."""
_HIDING = (events.TURN_FAILED, events.TURN_ABANDONED)
_CHANGES = (events.TURN_STARTED, events.HANDOFF, *_HIDING)
_EVERYTHING = 2**62


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
    notes: dict[int, Floors] = {}
    for segment in await view.chain():
        found = await store.records([segment], left, newest=True, types=_CHANGES)
        for record in reversed(found):
            if record.type in _HIDING:
                hidden |= _hidden_by(record)
                continue
            if record.turn in hidden:
                continue
            agent = _given_to(record)
            if record.body is None:
                if segment.session not in notes:
                    notes[segment.session] = await _noted(store, segment.session)
                agent = _noted_at(notes[segment.session], record.seq)
            if agent is not None:
                return agent
        left -= len(found)
        if left <= 0:
            break
    return NOBODY


Floors = list[tuple[int, str | None]]
"""From which position on an agent had the floor; None where the turn changed nothing."""


async def floors_in(store: LogStore, segment: Segment) -> Floors:
    """Who had the floor in a stretch that is about to be erased; without what was erased before.

    Only the newest turns and handoffs of it are looked at.
    """
    found = await store.records([segment], _NEWEST, newest=True, types=_CHANGES)
    hidden = set[int]().union(*(_hidden_by(record) for record in found))
    floors: Floors = []
    begins = True
    for record in found:
        if record.type in _HIDING or record.turn in hidden:
            continue
        if record.body is None:
            begins = True
        elif begins or floors[-1][1] != _given_to(record):
            floors.append((record.seq, _given_to(record)))
            begins = False
    return floors


async def _noted(store: LogStore, session: int) -> Floors:
    """What erasing has noted of the floors in the stretches that it took."""
    everything = Segment(session, 0, _EVERYTHING)
    notes = await store.records([everything], types=[events.SESSION_ERASED])
    return sorted(
        ((at, agent) for note in notes for at, agent in body_of(note).get("floors", ())),
        key=lambda noted: noted[0],
    )


def _noted_at(noted: Floors, position: int) -> str | None:
    before = bisect_right(noted, position, key=lambda each: each[0])
    return noted[before - 1][1] if before else None


def _hidden_by(record: Record) -> set[int]:
    """The turn that the end of a turn has hidden, if it did; one that was erased has."""
    if record.type not in _HIDING or body_of(record).get("outcome", "hidden") != "hidden":
        return set()
    return {record.turn}


def _given_to(record: Record) -> str | None:
    agent = body_of(record).get("to" if record.type == events.HANDOFF else "agent")
    return None if agent is None else str(agent)
