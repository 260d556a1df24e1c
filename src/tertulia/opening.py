"""What a caller says of a session when it is opened, and what becomes of that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from tertulia import events, retention
from tertulia.drafting import Draft
from tertulia.errors import RetentionRefused, SessionExists
from tertulia.host import Host
from tertulia.messages import Message
from tertulia.stores.base import Branch, Details, SessionRow


class Opening(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller said of the session when it was opened; None means: as stored."""

    user: str | None = None
    metadata: dict[str, Any] | None = None
    retention: dict[str, Any] | None = None
    system: str | None = None
    agent: str | None = None
    messages: tuple[Message, ...] = ()

    @property
    def plain(self) -> bool:
        """Whether nothing is said but who speaks."""
        return not (self.metadata or self.retention or self.system or self.messages)


def unborn(host: Host, app: str | None, session_id: str, opening: Opening) -> SessionRow:
    """The row that would be created for a caller."""
    now, uid = host.clock.now(), host.ids.uid()
    details = Details(
        metadata=opening.metadata or {},
        retention=opening.retention,
        system=opening.system,
        agent=opening.agent,
    )
    return SessionRow(
        key=0,
        uid=uid,
        app=app,
        id=session_id,
        user=opening.user,
        seq=0,
        digest=events.genesis(uid),
        created=now,
        active=now,
        details=details,
    )


def creation(host: Host, row: SessionRow, opening: Opening) -> Draft:
    """A draft that creates a session, with the messages it begins with."""
    draft = Draft(row, now=row.created, salt=host.ids.salt, create=True)
    draft.branch = Branch(0, 0)
    draft.add(events.SESSION_CREATED, msgspec.to_builtins(row.details))
    for message in opening.messages:
        draft.message(message)
    return draft


def merge(draft: Draft, opening: Opening) -> None:
    """Bring metadata, retention and system prompt of a reopened session up to date.

    Raises SessionExists for prepared messages, and RetentionRefused.
    """
    if opening.plain:
        return
    session_id, old = draft.row.id, draft.row.details
    if opening.messages:
        raise SessionExists(
            f"session {session_id!r} exists; messages= is for new ones", session_id=session_id
        )
    changes: dict[str, Any] = {}
    metadata = {**old.metadata, **(opening.metadata or {})}
    if metadata != old.metadata:
        changes["metadata"] = metadata
    if opening.system is not None and opening.system != old.system:
        changes["system"] = opening.system
    if changes:
        draft.add(events.SESSION_CHANGED, changes, actor="app")
    if opening.retention is not None and opening.retention != old.retention:
        _check_weaker(session_id, old, opening.retention)
        draft.add(events.RETENTION_SET, {"retention": opening.retention}, actor="app")
        changes["retention"] = opening.retention
    if changes:
        draft.after["details"] = msgspec.structs.replace(old, **changes)


def _check_weaker(session_id: str, old: Details, new: Mapping[str, Any]) -> None:
    before, after = retention.parse(old.retention), retention.parse(new)
    reason = retention.weakens(before, after) if before is not None else None
    if reason is not None:
        raise RetentionRefused(f"session {session_id!r}: {reason}", session_id=session_id)
