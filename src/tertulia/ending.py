"""Ending a conversation, going on with it, deleting it, and holding it for the law."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeVar

import msgspec

from tertulia import events, retention
from tertulia.branching import outside_turn, permit
from tertulia.codec import encode
from tertulia.conversation import Conversation, How, nothing
from tertulia.drafting import Draft
from tertulia.errors import InvalidInput, RetentionRefused, SessionNotFound
from tertulia.opening import Opening
from tertulia.scoped import StateWrite
from tertulia.stores.base import Details, Receipt, SessionRow
from tertulia.view import View

R = TypeVar("R", Receipt, None)


async def end(
    conversation: Conversation, opening: Opening, reason: str | None, *, quiet: bool = False
) -> None:
    """End the conversation: session state is cleared, writes are refused until `reopen`.

    `quiet` is for housekeeping, which is no activity.
    """
    outside_turn(conversation, "end")
    store = conversation.host.store

    async def build(draft: Draft) -> None:
        draft.close_calls()
        if draft.row.key:
            view = await View.at(store, draft.row, draft.row.seq)
            for key in await view.state_keys():
                record = await view.state(key)
                if record is not None and record.type == events.STATE_SET:
                    await StateWrite("session", key, None).draft(draft, store)
        draft.add(events.SESSION_ENDED, {"reason": reason}, actor="app")
        draft.after["status"] = "ended"
        draft.quiet = quiet

    await conversation.append(opening, build, How(suspended="close"))


async def reopen(conversation: Conversation, opening: Opening) -> None:
    """Go on with a conversation that was ended; nothing happens if it was not."""
    outside_turn(conversation, "reopen")

    async def build(draft: Draft) -> None:
        if draft.row.status == "ended":
            draft.add(events.SESSION_REOPENED, {}, actor="app")
            draft.after["status"] = "open"

    await conversation.enter()
    try:
        await conversation.commit(opening, build, How(ended=True))
    finally:
        conversation.gate.leave()


async def unlock(conversation: Conversation, opening: Opening) -> int | None:
    """Take the session away from whoever holds it, also from a process that lives.

    The open turn is closed as if its process had died; what that process still tries to write is
    refused. Returns the number of the turn that was closed, or None where none was open. Raises
    SessionNotFound.
    """
    row = await conversation.existing(opening)
    if row.open_turn is None:
        return None
    if conversation.turn is not None:
        await conversation.turn.abandon()
        return row.open_turn
    conversation.known = None
    await conversation.append(opening, nothing, How(seize_after=0, ended=True, suspended="close"))
    return row.open_turn


async def hold(conversation: Conversation, opening: Opening, reason: str | None) -> None:
    """Set a legal hold, or release it with None. Raises InvalidInput for an empty reason."""
    if reason is not None and not reason.strip():
        raise InvalidInput("a legal hold needs its reason, for example the case it belongs to")
    outside_turn(conversation, "setting or releasing a hold")

    async def build(draft: Draft) -> None:
        old: Details = draft.after.get("details", draft.row.details)
        kept = old.retention
        if reason is None and kept is not None and kept.get("legal_hold"):
            kept = {**kept, "legal_hold": False}
        if old.hold == reason and kept == old.retention:
            return
        kind = events.HOLD_RELEASED if reason is None else events.HOLD_SET
        draft.add(kind, {"reason": reason or old.hold}, actor="app")
        draft.after["details"] = msgspec.structs.replace(old, hold=reason, retention=kept)
        draft.quiet = True

    await conversation.enter()
    try:
        await conversation.commit(opening, build, How(ended=True, suspended="keep"))
    finally:
        conversation.gate.leave()


async def _check_heirs(conversation: Conversation, row: SessionRow) -> None:
    """A hold on a fork holds what it inherits. Raises RetentionRefused."""
    store = conversation.host.store
    heirs = await store.children(row.key)
    while heirs:
        heir = heirs.pop()
        policy = retention.parse(heir.details.retention)
        if heir.details.hold is not None or (policy is not None and policy.legal_hold):
            raise RetentionRefused(
                f"session {conversation.id!r}: a legal hold on {heir.id!r}, which forked off it, "
                "refuses deleting",
                session_id=conversation.id,
            )
        heirs.extend(await store.children(heir.key))


async def delete(
    conversation: Conversation, opening: Opening, why: str, *, erasing: bool = False
) -> Receipt:
    """Remove the session with all that belongs to it; the receipt says what was removed.

    `erasing` is the erasure of a person, which goes before `immutable` but not before a hold.

    Raises SessionNotFound and RetentionRefused.
    """
    clock = conversation.host.clock

    def receipt_of(row: SessionRow, forks: int) -> Receipt:
        return _receipt(row, clock.now(), why, forks)

    return await _remove(conversation, opening, receipt_of, "erase" if erasing else "delete")


async def discard(conversation: Conversation, opening: Opening) -> None:
    """Remove a session that was for one turn only, and leave no receipt: nobody meant to keep it.

    Raises as `delete`.
    """
    await _remove(conversation, opening, lambda _row, _forks: None, "delete")


def _receipt(row: SessionRow, time: int, why: str, forks: int) -> Receipt:
    body = {
        "uid": row.uid.hex(),
        "events": row.seq - row.base,
        "digest": row.digest.hex(),
        "why": why,
        "forks": forks,
        "out_of_reach": ["backups", "exports"],
    }
    return Receipt(time=time, type="session.deleted", body=encode(body))


async def _remove(
    conversation: Conversation,
    opening: Opening,
    receipt_of: Callable[[SessionRow, int], R],
    deed: Literal["delete", "erase"],
) -> R:
    """Remove the session; `receipt_of` gets its row, and how many sessions forked off it."""
    outside_turn(conversation, "delete")
    store = conversation.host.store
    await conversation.enter()
    try:
        conversation.known = None
        draft = await conversation.draft(opening, How(ended=True, moved=True, suspended="keep"))
        row = draft.row
        if draft.create:
            raise SessionNotFound(
                f"there is no session {conversation.id!r}", session_id=conversation.id
            )
        permit(conversation, row, deed, conversation.host.clock.now())
        children = await store.children(row.key)
        await _check_heirs(conversation, row)
        receipt = receipt_of(row, len(children))
        await store.delete_session(row, receipt, stub=bool(children))
        for child in children:
            heir = conversation.host.registry.get(("session", child.app, child.id))
            if heir is not None:
                heir.known = None
        conversation.pending.clear()
        return receipt
    finally:
        conversation.known = None
        conversation.gate.leave()
