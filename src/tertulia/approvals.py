"""Approvals: tool calls that wait for a person, and what that person decides.

Both are in the log of the suspended turn, so any process may ask, and any may decide.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import Any, Literal, Self

import msgspec

from tertulia import events
from tertulia.clock import to_iso
from tertulia.codec import body_of
from tertulia.conversation import Conversation, How
from tertulia.drafting import Draft
from tertulia.errors import InvalidInput
from tertulia.events import Record
from tertulia.opening import Opening
from tertulia.recovery import turn_records
from tertulia.stores.base import SessionRow
from tertulia.values import text

Decision = Literal["approved", "rejected"]


class Approval(msgspec.Struct, frozen=True, kw_only=True):
    """A tool call that needs, or needed, a person's consent before it runs."""

    id: str
    """The id of the tool call."""
    name: str
    """The tool."""
    arguments: dict[str, Any]
    agent: str | None = None
    """The agent that called it."""
    turn: int
    requested: str
    """When, as ISO 8601 text in UTC."""
    decision: Decision | None = None
    reason: str | None = None
    """Why it was rejected."""

    def __await__(self) -> Generator[Any, Any, Self]:
        return self
        yield


def approvals(records: Iterable[Record]) -> dict[str, Approval]:
    """The approvals of a turn by the ids of their calls, from its log."""
    found: dict[str, Approval] = {}
    for record in records:
        if record.type not in _KINDS or record.body is None:
            continue
        body = body_of(record)
        if record.type == events.APPROVAL_REQUESTED:
            found[body["call"]] = Approval(
                id=body["call"],
                name=body["name"],
                arguments=body.get("arguments") or {},
                agent=body.get("agent"),
                turn=record.turn,
                requested=to_iso(record.time),
            )
        elif body.get("call") in found:
            found[body["call"]] = msgspec.structs.replace(
                found[body["call"]], decision=_KINDS[record.type], reason=body.get("reason")
            )
    return found


async def pending(conversation: Conversation, opening: Opening) -> list[Approval]:
    """The calls of the suspended turn that nobody has decided on, in the order of the calls."""
    row = await conversation.row()
    if row is None:
        return []
    conversation.check_access(row, opening)
    if row.open_turn is None or await is_running(conversation, row):
        return []
    known = approvals(await turn_records(conversation.host.store, row, row.open_turn))
    return [known[call] for call in row.open_calls if call in known and not known[call].decision]


async def decide(
    conversation: Conversation,
    opening: Opening,
    call_id: str,
    decision: Decision,
    reason: str | None = None,
) -> Approval:
    """Note a decision, durably, and return it; the same one again changes nothing.

    Raises InvalidInput where no such call waits, or where it was decided otherwise.
    """
    said = None if reason is None else text(reason, "the reason")
    before = await conversation.existing(opening)
    if before.open_turn is None or await is_running(conversation, before):
        raise InvalidInput(_unknown(conversation.id, call_id, ()))

    async def build(draft: Draft) -> Approval:
        row = draft.row
        records = []
        if row.open_turn is not None:
            records = await turn_records(conversation.host.store, row, row.open_turn)
        known = approvals(records)
        found = known.get(call_id)
        if found is None or call_id not in row.open_calls:
            raise InvalidInput(_unknown(conversation.id, call_id, known.values()))
        if found.decision == decision:
            return found
        if found.decision is not None:
            raise InvalidInput(f"call {call_id!r} of {found.name} was {found.decision} already")
        kind = events.APPROVAL_GRANTED if decision == "approved" else events.APPROVAL_REJECTED
        draft.add(kind, {"call": call_id, **({"reason": said} if said else {})}, actor="user")
        return msgspec.structs.replace(found, decision=decision, reason=said)

    return await conversation.append(opening, build, How(suspended="keep"))


async def is_running(conversation: Conversation, row: SessionRow) -> bool:
    """Whether a worker that lives runs the open turn: then nothing of it waits for a person."""
    store = conversation.host.store
    if row.holder is None or row.holder == store.worker:
        return conversation.turn is not None
    return await store.worker_is_alive(row.holder)


def _unknown(session_id: str, call_id: str, known: Iterable[Approval]) -> str:
    waiting = ", ".join(f"{each.id} ({each.name})" for each in known if each.decision is None)
    return (
        f"no call {call_id!r} of session {session_id!r} waits for an approval; "
        f"waiting: {waiting or 'none'}"
    )


_KINDS: dict[str, Decision | None] = {
    events.APPROVAL_REQUESTED: None,
    events.APPROVAL_GRANTED: "approved",
    events.APPROVAL_REJECTED: "rejected",
}
