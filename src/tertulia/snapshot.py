"""A session as JSON-able data and back, duplicating nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from tertulia.branching import permit
from tertulia.codec import decode
from tertulia.conversation import Conversation
from tertulia.drafting import Draft, messages_of
from tertulia.errors import InvalidInput, StoreTooNew
from tertulia.events import SESSION_PRUNED
from tertulia.messages import Message
from tertulia.opening import Opening
from tertulia.scoped import StateWrite, stored_value
from tertulia.scopes import check_key, check_value
from tertulia.stores.base import Mark, SessionRow
from tertulia.values import json_value
from tertulia.view import HOLES

if TYPE_CHECKING:
    from tertulia.session import Session

VERSION = 1


class Fields(msgspec.Struct, kw_only=True):
    """What a dictionary says of a session; every part may be missing."""

    version: int = VERSION
    session_id: str | None = None
    app_name: str | None = None
    user_id: str | None = None
    metadata: dict[str, Any] | None = None
    retention: dict[str, Any] | None = None
    system: str | None = None
    messages: list[dict[str, Any]] = []
    state: dict[str, Any] = {}
    head: dict[str, Any] | None = None


async def take(conversation: Conversation, opening: Opening) -> dict[str, Any]:
    """The data of a session as it is now, or as it would be created."""
    row = await conversation.row()
    if row is None:
        messages = [message.to_dict() for message in opening.messages]
        return _data(conversation, opening, None, messages, {})
    conversation.check_access(row, opening)
    view = await conversation.view(row)
    messages = [message.to_dict() for message in await view.messages()]
    state: dict[str, Any] = {}
    for key in await view.state_keys():
        value = await stored_value(conversation, row, "session", key)
        if value is not None:
            state[key] = decode(value, f"state {key!r}")
    return _data(conversation, opening, row, messages, state)


def _data(
    conversation: Conversation,
    opening: Opening,
    row: SessionRow | None,
    messages: list[dict[str, Any]],
    state: dict[str, Any],
) -> dict[str, Any]:
    details = row.details if row is not None else opening
    head: dict[str, Any] | None = None
    if row is not None:
        head = {"uid": row.uid.hex(), "seq": row.seq, "digest": row.digest.hex()}
    return {
        "version": VERSION,
        "session_id": conversation.id,
        "app_name": conversation.app,
        "user_id": row.user if row is not None else opening.user,
        "metadata": json_value(details.metadata or {}, "metadata"),
        "retention": json_value(details.retention, "retention"),
        "system": details.system,
        "messages": messages,
        "state": state,
        "head": head,
    }


def parse(data: Mapping[str, Any]) -> Fields:
    """The fields of a dictionary; unknown ones are left alone. Raises InvalidInput, StoreTooNew."""
    if not isinstance(data, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidInput(f"a saved session is a mapping, not {type(data).__name__}")
    try:
        fields = msgspec.convert(dict(data), Fields)
    except (msgspec.ValidationError, TypeError, ValueError) as error:
        raise InvalidInput(f"this is no saved session: {error}") from None
    if fields.version > VERSION:
        raise StoreTooNew(
            f"the session was saved in version {fields.version} by a newer Tertulia; "
            f"this one reads up to {VERSION}"
        )
    return fields


async def restore(session: Session, fields: Fields) -> None:
    """Bring a session to what its saved form says, by events."""
    conversation, opening = session._conversation, session._opening  # pyright: ignore[reportPrivateUsage]
    wanted = messages_of(fields.messages)
    state = {key: check_value(value, check_key(key))[1] for key, value in fields.state.items()}
    store = conversation.host.store

    async def build(draft: Draft) -> None:
        row = draft.row
        changes: dict[str, bytes | None] = dict(state)
        missing = wanted
        if row.key:
            if fields.head is not None and fields.head.get("digest") == row.digest.hex():
                return
            missing = await _hide_what_differs(conversation, draft, wanted)
            changes = await _changed(conversation, row, state)
        for message in missing:
            draft.message(message)
        for key, value in sorted(changes.items()):
            await StateWrite("session", key, value).draft(draft, store)

    await conversation.append(opening, build)


async def _hide_what_differs(
    conversation: Conversation, draft: Draft, wanted: list[Message]
) -> list[Message]:
    """Hide the visible messages from the first that differs on; what is missing from there."""
    row = draft.row
    draft.close_calls()
    visible = await (await conversation.view(row)).messages()
    common = 0
    while common < min(len(visible), len(wanted)) and _same(visible[common], wanted[common]):
        common += 1
    if common == len(visible):
        return wanted[common:]
    permit(conversation, row, "rewind", draft.now)
    while common and (visible[common].role == "tool" or _is_tool(wanted, common)):
        common -= 1
    low = visible[common - 1].seq or 0 if common else 0
    hidden = len(visible) - common
    seq = draft.add(
        SESSION_PRUNED, {"strategy": "replaced", "hidden": hidden, "stretches": [(low, row.seq)]}
    )
    draft.marks.append(Mark("hole", low, draft.seq - 1, seq))
    draft.after["marks"] = draft.after.get("marks", row.marks) | HOLES
    draft.visible = common
    return wanted[common:]


def _is_tool(messages: list[Message], index: int) -> bool:
    return index < len(messages) and messages[index].role == "tool"


async def _changed(
    conversation: Conversation, row: SessionRow, state: dict[str, bytes]
) -> dict[str, bytes | None]:
    """The state writes that lead from what is stored to what is wanted."""
    changes: dict[str, bytes | None] = {}
    view = await conversation.view(row)
    for key in {*state, *await view.state_keys()}:
        if await stored_value(conversation, row, "session", key) != state.get(key):
            changes[key] = state.get(key)
    return changes


def _same(left: Message, right: Message) -> bool:
    fields = ("role", "content", "tool_calls", "tool_call_id", "name", "agent", "metadata")
    return all(getattr(left, name) == getattr(right, name) for name in fields)
