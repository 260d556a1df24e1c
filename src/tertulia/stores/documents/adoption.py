"""Sessions that were saved by hand, from `to_dict`: their log begins with what they show."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import msgspec

from tertulia import events
from tertulia.codec import encode
from tertulia.errors import InvalidInput, StoreCorrupt
from tertulia.messages import Message, parse
from tertulia.stores.base import Branch, Details, SessionRow
from tertulia.stores.documents.saved import Saved, SavedEvent, part
from tertulia.values import json_value

_UNKNOWN = "The outcome of this call is unknown: it was cut off before it answered."
_ACTORS = {"user": "user", "assistant": "agent", "tool": "tool"}


class _Log:
    """A log in the making; uid and salts come from the document, so that each time is the same."""

    def __init__(self, seed: bytes, details: Details) -> None:
        self.uid = sha256(b"tertulia.1/adopted\0" + seed).digest()[:16]
        self.events: list[SavedEvent] = []
        self.state: list[tuple[str, int]] = []
        self.digest = events.genesis(self.uid)
        self.open_calls: tuple[str, ...] = ()
        self.messages = 0
        self._seed = seed
        self._group = 0
        self.add(events.SESSION_CREATED, msgspec.to_builtins(details), "runtime")

    def add(self, kind: str, body: Any, actor: str, turn: int = 0) -> int:
        data, seq = encode(body, f"the {kind} event"), len(self.events) + 1
        salt = sha256(self._seed + b"%d" % seq).digest()[:16]
        header = events.header(self.uid, seq, kind, 0, actor, turn or seq)
        self.digest = events.link(self.digest, header, events.body_digest(salt, data))
        self.events.append(
            SavedEvent(seq, kind, 0, actor, turn or seq, data.decode(), salt, self.digest)
        )
        return seq

    def message(self, message: Message) -> None:
        """Add a message; a call without its result gets one that says so."""
        answered = message.tool_call_id
        if answered is not None and answered not in self.open_calls:
            raise InvalidInput(f"the tool result {answered!r} has no call before it")
        if answered is None:
            for call in self.open_calls:
                self._result(Message.tool(_UNKNOWN, call, metadata={"outcome": "unknown"}))
        if answered is not None:
            self._result(message)
            return
        self._group = self._append(message, 0)
        self.open_calls = tuple(call.id for call in message.tool_calls or ())

    def _result(self, message: Message) -> None:
        self._append(message, self._group)
        self.open_calls = tuple(one for one in self.open_calls if one != message.tool_call_id)

    def _append(self, message: Message, turn: int) -> int:
        self.messages += 1
        return self.add(events.MESSAGE_ADDED, message, _ACTORS.get(message.role, "app"), turn)


def adopt(name: str, data: Mapping[str, Any], app: str | None, session_id: str) -> Saved:
    """The rows of a session that a document describes. Raises StoreCorrupt."""
    try:
        details = Details(
            metadata=json_value(data.get("metadata") or {}, "metadata"),
            retention=json_value(data.get("retention"), "retention"),
            system=data.get("system"),
        )
        log = _Log(name.encode() + msgspec.json.encode(data, order="deterministic"), details)
        for message in data.get("messages") or ():
            log.message(parse(message))
        for key, value in part(data, "state").items():
            body = {"scope": "session", "key": key, "value": json_value(value, key)}
            log.state.append((key, log.add(events.STATE_SET, body, "app")))
    except (InvalidInput, TypeError, AttributeError) as error:
        raise StoreCorrupt(f"document {name!r} is no saved session: {error}") from error
    user = data.get("user_id")
    row = SessionRow(
        key=0,
        uid=log.uid,
        app=app,
        id=session_id,
        user=user if isinstance(user, str) else None,
        seq=len(log.events),
        digest=log.digest,
        open_calls=log.open_calls,
        visible=log.messages,
        created=0,
        active=0,
        details=details,
    )
    return Saved(
        worker=b"",
        row=row,
        events=log.events,
        branches=[Branch(0, 0)],
        state=log.state,
    )
