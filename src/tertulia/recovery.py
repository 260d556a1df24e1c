"""Closing turns: those that end, and those that a dead process left open."""

from __future__ import annotations

from typing import Any

from tertulia import closing, events
from tertulia.codec import body_of
from tertulia.drafting import Draft
from tertulia.events import Record
from tertulia.floor import set_floor
from tertulia.messages import Message, parse
from tertulia.stores.base import LogStore, Mark, Segment, SessionRow
from tertulia.view import CUTS


async def close_abandoned(store: LogStore, draft: Draft) -> None:
    """Close the turn that is open in the row of a draft, as the first thing of it.

    One that waits for an approval is interrupted, and keeps what it did; any other was left
    behind by its holder.
    """
    row = draft.row
    turn = row.open_turn
    if turn is None:
        return
    records = await turn_records(store, row, turn)
    trace = closing.trace(turn, ((record.type, body_of(record)) for record in records))
    if row.suspended:
        staged = staged_messages(records) if row.open_calls else []
        if staged:
            draft.turn = turn
            draft.close_calls(trace.unstarted)
        for message in staged:
            draft.message(message)
        body = {"reason": "nobody waited for its approval"}
        await close_turn(store, draft, trace, events.TURN_INTERRUPTED, body, keep=True)
    else:
        await close_turn(store, draft, trace, events.TURN_ABANDONED, {})
    draft.after["epoch"] = row.epoch + 1


async def turn_records(store: LogStore, row: SessionRow, turn: int) -> list[Record]:
    """What an open turn has logged so far."""
    return await store.records([Segment(row.key, turn - 1, row.seq)])


def staged_messages(records: list[Record]) -> list[Message]:
    """The messages that came since the calls that are open were made, and wait for their end."""
    found: list[Message] = []
    for record in records:
        if record.type == events.MESSAGE_STAGED and record.body is not None:
            found.append(parse(body_of(record)["message"]))
        elif record.type == events.MESSAGE_ADDED and body_of(record).get("tool_calls"):
            found.clear()
    return found


async def close_turn(
    store: LogStore,
    draft: Draft,
    trace: closing.Trace,
    kind: str,
    body: dict[str, Any],
    *,
    keep: bool = False,
) -> None:
    """Close the open turn in a draft: keep what it did, or hide it as if it had not been."""
    draft.turn, draft.group = trace.turn, None
    kept = keep or trace.outcome() == "interrupted"
    if kept:
        draft.close_calls(trace.unstarted)
    if kind == events.TURN_FAILED and kept:
        kind = events.TURN_INTERRUPTED
    outcome = "kept" if kept else "hidden"
    messages = trace.messages + draft.added
    draft.add(kind, {**body, "outcome": outcome, "messages": messages})
    draft.after["holder"] = None
    draft.after["open_turn"] = None
    if not kept:
        set_floor(draft, trace.floor)
        await _hide_turn(store, draft, trace.turn)
    else:
        draft.count(messages)
    draft.open_calls, draft.turn = (), None


async def _hide_turn(store: LogStore, draft: Draft, turn: int) -> None:
    """Hide a turn behind a cut; a cut right before it grows, so that cuts stay few."""
    row = draft.row
    segment = Segment(row.key, row.branch, turn - 1)
    found: list[Mark] = []
    if row.marks & CUTS:
        found = await store.marks(segment, "cut", below=turn - 1, limit=1)
    if found and not await store.count_messages([Segment(row.key, found[0].high, turn - 1)]):
        draft.extend_cut = (found[0].high, draft.seq)
    else:
        draft.marks.append(Mark("cut", turn - 1, draft.seq, draft.seq))
        draft.after["marks"] = row.marks | CUTS
