"""Forks and rewinds: the same view from another position, with nothing copied."""

from __future__ import annotations

from typing import Any

import msgspec

from tertulia import events, retention
from tertulia.conversation import Conversation
from tertulia.drafting import Draft
from tertulia.errors import RetentionRefused, SessionBusy, SessionExists
from tertulia.floor import floor_at, set_floor
from tertulia.opening import Opening
from tertulia.stores.base import Branch, LogStore, Segment, SessionRow
from tertulia.stores.moving import moved_away
from tertulia.turns import own_turn
from tertulia.view import View, owner_of, settle


def outside_turn(conversation: Conversation, what: str) -> None:
    """Raise SessionBusy when the calling code is inside a turn of this conversation."""
    if own_turn(conversation) is not None:
        raise SessionBusy(
            f"{what} is not possible inside a turn of session {conversation.id!r}; "
            "do it when the turn has ended",
            session_id=conversation.id,
        )


def permit(conversation: Conversation, row: SessionRow, action: Any, now: int) -> None:
    """Raise RetentionRefused when the session's retention forbids an action."""
    reason = retention.forbids(
        retention.parse(row.details.retention),
        row.details.hold is not None,
        action,
        active=row.active,
        now=now,
    )
    if reason is not None:
        raise RetentionRefused(f"session {conversation.id!r}: {reason}", session_id=conversation.id)


async def rewind(conversation: Conversation, opening: Opening, to: int) -> int:
    """Make the view, messages and state, that of an earlier position; returns that position.

    Raises InvalidInput beyond the end, RetentionRefused, HistoryErased.
    """
    outside_turn(conversation, "rewind")
    store = conversation.host.store

    async def build(draft: Draft) -> int:
        row = draft.row
        permit(conversation, row, "rewind", draft.now)
        draft.close_calls()
        position = await settle(store, row, to)
        view = await View.at(store, row, position)
        await view.check_kept()
        visible = await view.count()
        low = draft.seq
        draft.add(events.SESSION_REWOUND, {"to": position}, actor="app")
        draft.branch = await _standing_on(store, view, row.key, low)
        draft.after["branch"] = low
        draft.visible = visible
        if row.details.agent is not None:
            set_floor(draft, await floor_at(store, view))
        return position

    return await conversation.append(opening, build)


async def fork(
    source: Conversation, target: Conversation, opening: Opening, at: int | None
) -> SessionRow:
    """Create `target` as a branch of `source`, from its end or from an earlier position.

    Raises SessionExists, SessionNotFound, InvalidInput, HistoryErased.
    """
    store, host = source.host.store, source.host
    if await target.row() is not None:
        raise SessionExists(f"session {target.id!r} exists already", session_id=target.id)
    row = await source.existing(opening)
    if row.status == "moved":
        raise await moved_away(store, row)
    position = await settle(store, row, row.seq if at is None else at)
    owner = await owner_of(store, row, position)
    view = await View.at(store, row, position)
    if position != row.seq:
        await view.check_kept()
    uid = host.ids.uid()
    digest = await _digest_at(source, owner, position)
    now = host.clock.now()
    details = row.details
    if details.agent is not None and position != row.seq:
        details = msgspec.structs.replace(details, agent=await floor_at(store, view))
    child = SessionRow(
        key=0,
        uid=uid,
        app=target.app,
        id=target.id,
        user=row.user,
        base=position,
        parent=owner.key,
        branch=position,
        seq=position,
        digest=events.branch(uid, owner.uid, position, digest),
        visible=row.visible if position == row.seq else -1,
        marks=row.marks,
        created=now,
        active=now,
        details=details,
    )
    draft = Draft(child, now=now, salt=host.ids.salt, create=True)
    draft.branch = await _standing_on(store, view, 0, position)
    body = {"parent": owner.uid.hex(), "at": position, "digest": digest.hex()}
    draft.add(events.SESSION_FORKED, body, actor="app")
    await target.trim(draft)
    target.known = await store.commit(draft.change())
    return target.known


async def _standing_on(store: LogStore, view: View, session: int, low: int) -> Branch:
    """A branch that stands on a view; one of which it shows nothing is stepped over."""
    below = view.branch
    high = view.position
    if high - below.low <= 1:
        begun = await store.branch_at(below.session, below.low + 1)
        if begun is not None and begun.parent_session is not None:
            return Branch(session, low, begun.parent_session, begun.parent_low, begun.parent_high)
    return Branch(session, low, below.session, below.low, high)


async def _digest_at(source: Conversation, owner: SessionRow, position: int) -> bytes:
    if position == owner.seq:
        return owner.digest
    if position == 0:
        return events.genesis(owner.uid)
    store = source.host.store
    found = await store.records([Segment(owner.key, position - 1, position)])
    return found[0].digest
