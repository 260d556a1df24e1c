"""Going on with a turn that is open and that nobody holds: suspended, or left by a dead process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import msgspec

from tertulia import closing, doors, events, slots
from tertulia.afterwards import Hold, Taking
from tertulia.approvals import Approval, approvals
from tertulia.asked import Asked
from tertulia.codec import body_of
from tertulia.conversation import MAX_RACES, Conversation, How
from tertulia.errors import SessionBusy, SessionEnded, UsageError
from tertulia.events import Record
from tertulia.gate import Slots
from tertulia.messages import Message, ToolCall
from tertulia.opening import Opening
from tertulia.recovery import staged_messages, turn_records
from tertulia.scoped import staged_writes
from tertulia.stores.base import SessionRow
from tertulia.stores.moving import moved_away
from tertulia.turns import Turn, own_turn
from tertulia.usage import Usage


class OpenCall(msgspec.Struct, frozen=True):
    """A call without a result in a turn that goes on, and what is known of it."""

    call: ToolCall
    standing: Literal["started", "approved", "rejected"]
    """It may have run; it may run now; it must not run."""
    reason: str | None = None
    """Why it was rejected."""


class Resumed(msgspec.Struct, frozen=True):
    """A turn that goes on, under a hold of ours."""

    turn: Turn
    calls: list[OpenCall]
    usage: Usage
    """What its model requests consumed before."""


async def resume(
    conversation: Conversation,
    opening: Opening,
    seconds: float | None,
    knows: Callable[[str | None], bool],
) -> Resumed:
    """Take hold of the open turn of a session and go on with it.

    It waits `seconds` for a turn that runs in this process. `knows` says whether an agent of a
    name, or of none, is here to go on. Raises UsageError where no turn is open or its agent is not
    here, TurnTimeout, SessionBusy while another process runs it, ApprovalPending while a call
    waits for a decision, SessionNotFound, SessionEnded, AccessDenied.
    """
    if own_turn(conversation) is not None:
        raise UsageError(f"session {conversation.id!r} is in a turn of the calling code already")
    await conversation.enter(seconds)
    slot: Slots | None = None
    taking = Taking(conversation)
    try:
        slot = await slots.take(conversation, seconds)
        resumed = await _take_over(conversation, opening, knows, taking)
    except BaseException:
        if slot is not None:
            slot.leave()
        await doors.protected(lambda: _leave(conversation, taking))
        raise
    resumed.turn.slot, conversation.turn = slot, resumed.turn
    return resumed


async def _leave(conversation: Conversation, taking: Taking) -> None:
    """Give back a turn that was taken although its caller was stopped or the reply was lost."""
    try:
        await taking.undo()
    finally:
        conversation.gate.leave()


async def _take_over(
    conversation: Conversation,
    opening: Opening,
    knows: Callable[[str | None], bool],
    taking: Taking,
) -> Resumed:
    host = conversation.host
    for _ in range(MAX_RACES):
        conversation.known = None
        row = await _open_row(conversation, opening)
        number = row.open_turn or 0
        records = await turn_records(host.store, row, number)
        decided = approvals(records)
        _check_decided(conversation, row, decided)
        agent = _speaking(records)
        if not knows(agent):
            raise UsageError(
                f"turn {number} of session {conversation.id!r} is one of the agent {agent!r}, "
                "which is not known here; resume it with that agent"
            )
        draft = conversation.draft_on(row, number)
        draft.add(events.TURN_RESUMED, {})
        draft.after["holder"] = host.store.worker
        draft.after["epoch"] = row.epoch + 1
        hold = Hold(number, row.epoch + 1, resumed=True)
        if await taking.made(draft, hold) and conversation.known is not None:
            held, conversation.known = conversation.known, None
            return _resumed(conversation, held, records, decided)
    raise conversation.outrun()


async def _open_row(conversation: Conversation, opening: Opening) -> SessionRow:
    """The row of a session with a turn that nobody holds."""
    row = await conversation.existing(opening)
    if row.status == "moved":
        raise await moved_away(conversation.host.store, row)
    if row.status == "ended":
        raise SessionEnded(f"session {conversation.id!r} was ended", session_id=conversation.id)
    if row.open_turn is None:
        raise UsageError(
            f"there is nothing to resume in session {conversation.id!r}: no turn of it is open"
        )
    await conversation.free_row(How(held=_refuse_held))
    return row


async def _refuse_held(row: SessionRow) -> None:
    """Raise SessionBusy: the turn has a holder that lives."""
    raise SessionBusy(
        f"turn {row.open_turn} of session {row.id!r} is run by another process", session_id=row.id
    )


def _check_decided(conversation: Conversation, row: SessionRow, known: dict[str, Approval]) -> None:
    for call in row.open_calls:
        if call in known and known[call].decision is None:
            raise conversation.suspended(row)


def _resumed(
    conversation: Conversation,
    row: SessionRow,
    records: list[Record],
    decided: dict[str, Approval],
) -> Resumed:
    number = row.open_turn or 0
    trace = closing.trace(number, ((record.type, body_of(record)) for record in records))
    messages = [record for record in records if record.type == events.MESSAGE_ADDED]
    started = body_of(records[0])
    turn = Turn(conversation, row, _asked(started, messages[:1]), trace)
    turn.agent = _speaking(records)
    turn.writes = staged_writes(records)
    if row.open_calls:
        turn.staged = staged_messages(records)
    usage = Usage()
    for record in records:
        usage = usage.noted(body_of(record)) if record.type == events.USAGE else usage
    return Resumed(turn, _open_calls(row, messages, decided, trace), usage)


def _speaking(records: list[Record]) -> str | None:
    """The agent that spoke last in a turn."""
    agent: str | None = body_of(records[0]).get("agent")
    for record in records:
        body = body_of(record)
        if record.type in (events.HANDOFF, events.FAILOVER) and not body.get("aside"):
            agent = body.get("to")
    return agent


def _asked(started: dict[str, Any], first: list[Record]) -> Asked:
    """What the turn was asked for with."""
    return Asked(
        messages=tuple(_message(record) for record in first),
        key=started.get("key"),
        agent=None if started.get("floor") else started.get("agent"),
        metadata=started.get("metadata"),
        options=started.get("options"),
    )


def _open_calls(
    row: SessionRow, messages: list[Record], decided: dict[str, Approval], trace: closing.Trace
) -> list[OpenCall]:
    """The calls of the newest assistant message that have no result yet."""
    if not row.open_calls:
        return []
    calls = next(found for record in reversed(messages) if (found := _message(record).tool_calls))
    return [_open_call(call, decided, trace) for call in calls if call.id in row.open_calls]


def _open_call(call: ToolCall, decided: dict[str, Approval], trace: closing.Trace) -> OpenCall:
    approval = decided.get(call.id)
    if approval is None or call.id not in trace.unstarted:
        return OpenCall(call, "started")
    if approval.decision == "rejected":
        return OpenCall(call, "rejected", approval.reason)
    return OpenCall(call, "approved")


def _message(record: Record) -> Message:
    return msgspec.json.decode(record.body or b"{}", type=Message)
