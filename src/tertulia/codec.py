"""Events and messages to bytes and back.

A body is stored byte for byte and never rewritten; `FORMAT` tags its shape. A retired shape gets
one upcaster here, applied when it is read.
"""

from __future__ import annotations

from typing import Any

import msgspec

from tertulia.errors import HistoryErased, InvalidInput, StoreCorrupt
from tertulia.events import MAX_BODY, Event, Record
from tertulia.messages import Message

FORMAT = 1

_encode = msgspec.json.Encoder().encode
_decode_message = msgspec.json.Decoder(Message).decode
_decode_body = msgspec.json.Decoder(dict[str, Any]).decode


def encode(value: Any, what: str = "this") -> bytes:
    """JSON bytes of a message or of JSON-able data.

    Raises InvalidInput when it is larger than 1 MB or holds text that is not Unicode.
    """
    try:
        data = _encode(value)
    except (UnicodeEncodeError, TypeError, ValueError) as error:
        raise InvalidInput(f"{what} cannot be stored as JSON: {error}") from None
    if len(data) > MAX_BODY:
        raise InvalidInput(f"{what} is {len(data):,} bytes; at most {MAX_BODY:,} can be stored")
    return data


def decode(data: bytes, what: str) -> Any:
    """The JSON value in some bytes; raises StoreCorrupt, naming `what`."""
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StoreCorrupt(f"{what} is not what was written: {error}") from None


def message_of(record: Record, session_id: str) -> Message:
    """The message in a `message.added` record, with its id, position and time.

    Raises HistoryErased where retention erased it, and StoreCorrupt.
    """
    body = record.body
    if body is None:
        raise HistoryErased(
            f"session {session_id!r}: the message at {record.seq} was erased by retention",
            session_id=session_id,
        )
    try:
        message = _decode_message(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StoreCorrupt(
            f"session {session_id!r}: the message at {record.seq} is not what was written: {error}"
        ) from None
    return stamped(message, record.digest, record.seq, record.time)


def stamped(message: Message, digest: bytes, seq: int, time: int) -> Message:
    """The message as it stands at a position of a log; its id is the same in every fork."""
    return Message(
        role=message.role,
        content=message.content,
        tool_calls=message.tool_calls,
        tool_call_id=message.tool_call_id,
        name=message.name,
        agent=message.agent,
        metadata=message.metadata,
        id=message.id or f"{digest.hex()[:12]}-{seq}",
        seq=seq,
        time=time,
    )


def event_of(record: Record, session_id: str) -> Event:
    """The event in a record; raises StoreCorrupt."""
    body: dict[str, Any] | None = None
    if record.body is not None:
        try:
            body = _decode_body(record.body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise StoreCorrupt(
                f"session {session_id!r}: event {record.seq} is not what was written: {error}"
            ) from None
    return Event(
        session_id=session_id,
        seq=record.seq,
        type=record.type,
        time=record.time,
        actor=record.actor,
        turn=record.turn,
        body=body,
        digest=record.digest.hex(),
    )


def body_of(record: Record) -> dict[str, Any]:
    """The body of a record as data; empty after erasure."""
    return {} if record.body is None else _decode_body(record.body)
