"""The ConversationRelay frames of Twilio and Telnyx, as they are published: JSON objects.

The carrier's frames are read tolerantly: fields that we do not know are passed over.
"""

from __future__ import annotations

from typing import Annotated, Any, cast

import msgspec

from tertulia.errors import InvalidFrame

_Text = Annotated[str, msgspec.Meta(min_length=1)]
_Digits = Annotated[str, msgspec.Meta(pattern=r"\A[0-9A-DwW*#]+\Z")]


# -- from the carrier


class SetupFrame(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    tag_field="type",
    tag="setup",
    rename={
        "call_id": "callSid",
        "session_id": "sessionId",
        "from_number": "from",
        "to_number": "to",
        "custom_parameters": "customParameters",
    },
):
    """The first frame: who calls whom. The carrier's other fields are kept as they are."""

    call_id: _Text
    session_id: str | None = None
    from_number: str | None = None
    to_number: str | None = None
    direction: str | None = None
    custom_parameters: dict[str, Any] | None = None


class PromptFrame(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="prompt", rename="camel"
):
    """What the caller said; with ``last`` false, what it is so far."""

    voice_prompt: str
    lang: str | None = None
    last: bool = True


class DtmfFrame(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="dtmf"):
    """The caller pressed a key."""

    digit: _Digits


class InterruptFrame(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="interrupt", rename="camel"
):
    """The caller interrupted: what was spoken until then, and how long that took."""

    utterance_until_interrupt: str | None = None
    duration_until_interrupt_ms: float | str | None = None


class ErrorFrame(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="error"):
    """The carrier could not do what it was sent, or failed."""

    description: str = ""


CarrierFrame = SetupFrame | PromptFrame | DtmfFrame | InterruptFrame | ErrorFrame


# -- to the carrier


class TextFrame(msgspec.Struct, frozen=True, tag_field="type", tag="text", kw_only=True):
    """A text to speak; with ``last`` there is no more of it."""

    token: str
    last: bool = False


class PlayFrame(
    msgspec.Struct, frozen=True, tag_field="type", tag="play", kw_only=True, omit_defaults=True
):
    """A recording to play, by its URL."""

    source: _Text
    loop: int | None = None
    interruptible: bool | None = None


class SendDigitsFrame(
    msgspec.Struct, frozen=True, tag_field="type", tag="sendDigits", kw_only=True
):
    """Keys to send into the call; ``w`` is a pause."""

    digits: _Digits


class LanguageFrame(
    msgspec.Struct,
    frozen=True,
    tag_field="type",
    tag="language",
    kw_only=True,
    rename="camel",
    omit_defaults=True,
):
    """The languages to speak and to listen in, as BCP 47 tags; at least one of them."""

    tts_language: str | None = None
    transcription_language: str | None = None


class EndFrame(
    msgspec.Struct,
    frozen=True,
    tag_field="type",
    tag="end",
    kw_only=True,
    rename="camel",
    omit_defaults=True,
):
    """The carrier goes on with the call without us; it hands on what is in ``handoff_data``."""

    handoff_data: str | None = None


AppFrame = TextFrame | PlayFrame | SendDigitsFrame | LanguageFrame | EndFrame

_from_carrier = msgspec.json.Decoder(CarrierFrame)
_from_app = msgspec.json.Decoder(AppFrame)
_encoder = msgspec.json.Encoder()
_OURS = "text", "play", "sendDigits", "language", "end"
_THEIRS = "setup", "prompt", "dtmf", "interrupt", "error"


def decode_carrier(data: bytes | str, limit: int) -> CarrierFrame:
    """The frame of a carrier in at most `limit` bytes. Raises InvalidFrame."""
    if len(data) > limit:
        raise InvalidFrame(
            f"the frame has {len(data):,} bytes; the limit is {limit:,}", code="too_large"
        )
    try:
        return _from_carrier.decode(data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise _explained(data, error, _THEIRS) from None


def decode_app(data: bytes | str) -> AppFrame:
    """The frame of an application, as a carrier reads it. Raises InvalidFrame."""
    try:
        return _from_app.decode(data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise _explained(data, error, _OURS) from None


def encode(frame: AppFrame | CarrierFrame) -> str:
    """A frame as JSON. Raises InvalidFrame for what the other side would not take."""
    try:
        data = _encoder.encode(frame)
    except (TypeError, ValueError, RecursionError) as error:
        kind = frame.__struct_config__.tag
        raise InvalidFrame(f"the frame {kind} is no JSON: {error}", code="invalid_field") from None
    if not isinstance(frame, TextFrame):
        _checked(frame, data)
    return data.decode()


def _checked(frame: AppFrame | CarrierFrame, data: bytes) -> None:
    """Frames are not validated where they are made, and a carrier hangs up after a few bad ones."""
    if isinstance(frame, AppFrame):
        decode_app(data)
    else:
        decode_carrier(data, len(data))


def _explained(data: bytes | str, error: Exception, kinds: tuple[str, ...]) -> InvalidFrame:
    """What is wrong with a frame."""
    if not isinstance(error, msgspec.ValidationError):
        return InvalidFrame("the frame is no JSON object in UTF-8", code="bad_json")
    try:
        given: Any = msgspec.json.decode(data)
    except (msgspec.MsgspecError, RecursionError):
        return InvalidFrame("the frame is no JSON object in UTF-8", code="bad_json")
    if not isinstance(given, dict):
        return InvalidFrame("the frame is no JSON object", code="bad_json")
    kind = cast("dict[str, Any]", given).get("type")
    if not isinstance(kind, str):
        return InvalidFrame("the frame has no type", code="no_type")
    if kind not in kinds:
        shown = kind if len(kind) <= 60 else f"{kind[:60]}…"
        return InvalidFrame(f"the type {shown!r} is not known", code="unknown_type")
    said = str(error).replace("`", "")
    return InvalidFrame(f"the frame {kind} does not validate: {said}", code="invalid_field")
