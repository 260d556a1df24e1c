"""A session as JSON-able data and back, duplicating nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from tertulia import branching, hiding
from tertulia.codec import decode
from tertulia.conversation import Conversation, Opening
from tertulia.drafting import Draft, messages_of
from tertulia.errors import InvalidInput, StoreTooNew
from tertulia.messages import Message
from tertulia.scoped import StateWrite, stored_value
from tertulia.scopes import check_key, check_value
from tertulia.stores.base import SessionRow
from tertulia.values import json_value

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
    row = await conversation.row()
    if row is not None:
        conversation.check_access(row, opening)
        if fields.head is not None and fields.head.get("digest") == row.digest.hex():
            return
        wanted = await _back_to_common(conversation, opening, row, wanted)
        state = await _changed(conversation, row, state)

    async def build(draft: Draft) -> None:
        for message in wanted:
            draft.message(message)
        for key, value in state.items():
            await StateWrite("session", key, value).draft(draft, conversation.host.store)

    await conversation.append(opening, build)


async def _back_to_common(
    conversation: Conversation, opening: Opening, row: SessionRow, wanted: list[Message]
) -> list[Message]:
    """Go back to where the visible history and the wanted one part; what is missing from there."""
    visible = await (await conversation.view(row)).messages()
    common = 0
    while common < min(len(visible), len(wanted)) and _same(visible[common], wanted[common]):
        common += 1
    if common < len(visible):
        if common == 0:
            await hiding.clear(conversation, opening)
        else:
            await branching.rewind(conversation, opening, visible[common - 1].seq or 0)
            left = len(await _visible(conversation))
            common = min(common, left)
    return wanted[common:]


async def _visible(conversation: Conversation) -> list[Message]:
    row = await conversation.row()
    return [] if row is None else await (await conversation.view(row)).messages()


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
