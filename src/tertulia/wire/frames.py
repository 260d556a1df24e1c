"""Frames of the live protocol: one JSON object each, to and from events."""

from __future__ import annotations

import difflib
import json
import re
from typing import Any, cast

import msgspec

from tertulia.errors import InvalidFrame
from tertulia.wire.events import LiveEvent, decoder, event_types

MAX_FRAME = 256 * 1024
"""Bytes of a frame that a client may send, by default."""

_encoder = msgspec.json.Encoder()
_AT = re.compile(r" - at `(.*)`$")


def encode(event: LiveEvent) -> bytes:
    """An event as a frame. Raises InvalidFrame for a value that is no JSON."""
    try:
        return _encoder.encode(event)
    except (TypeError, ValueError, msgspec.MsgspecError, RecursionError) as error:
        raise InvalidFrame(
            f"the event {event.type} cannot be sent: {error}", code="invalid_field"
        ) from None


def decode(data: bytes | str, limit: int = MAX_FRAME) -> LiveEvent:
    """The event in a frame; what it says of itself but its class cannot be trusted.

    Keys that its class does not have are ignored. Raises InvalidFrame, which says what is wrong.
    """
    size = len(data)
    if isinstance(data, str) and size * 4 > limit:
        size = len(data.encode(errors="replace"))
    if size > limit:
        raise InvalidFrame(
            f"the frame has {size:,} bytes; the limit is {limit:,}", code="too_large"
        )
    try:
        return decoder().decode(data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise _explained(data, error) from None


def _explained(data: bytes | str, error: Exception) -> InvalidFrame:
    """What is wrong with a frame, in words for whoever wrote the client."""
    try:
        value: Any = json.loads(data)
    except (ValueError, RecursionError):
        return InvalidFrame("the frame is no JSON object in UTF-8", code="bad_json")
    if not isinstance(value, dict):
        return InvalidFrame(
            "the frame is no JSON object; send an object with a type", code="bad_json"
        )
    frame = cast("dict[str, Any]", value)
    kind = frame.get("type")
    if not isinstance(kind, str):
        return InvalidFrame("the frame has no type; send an object with a type", code="no_type")
    if kind not in event_types():
        near = difflib.get_close_matches(kind[:64], event_types(), 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return InvalidFrame(f"the type {_short(kind)} is not known{hint}", code="unknown_type")
    said = _AT.sub(r" (at \1)", str(error))
    return InvalidFrame(f"the event {kind} does not validate: {said}", code="invalid_field")


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:60]}…")
