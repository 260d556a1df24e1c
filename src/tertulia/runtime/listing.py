"""Listings of sessions."""

from __future__ import annotations

from typing import Any

import msgspec

from tertulia.clock import to_iso
from tertulia.stores.base import SessionRow


class SessionInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a listing."""

    id: str
    app_name: str | None
    user_id: str | None
    status: str
    messages: int
    """How many are visible; -1 when that is not known without counting."""
    created: str
    active: str
    metadata: dict[str, Any]
    seq: int
    running: bool
    """Whether a turn is open."""
    suspended: bool = False
    """Whether it waits for a person to approve a tool call."""
    cursor: int
    """Pass it as `after=` to get what follows in the listing."""


def info_of(row: SessionRow) -> SessionInfo:
    return SessionInfo(
        id=row.id,
        app_name=row.app,
        user_id=row.user,
        status=row.status,
        messages=row.visible,
        created=to_iso(row.created),
        active=to_iso(row.active),
        metadata=row.details.metadata,
        seq=row.seq,
        running=row.open_turn is not None,
        suspended=row.suspended,
        cursor=row.key,
    )
