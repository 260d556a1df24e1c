"""What workers send each other: a header of fixed size, and what it carries. Pure; nothing raises.

A frame is one message of NATS or of a WebSocket. Its `number` counts the frames that one side of a
link has sent, from 1 without a gap, so that a lost one is noticed.
"""

from __future__ import annotations

import struct
from enum import IntEnum

import msgspec

FRAME_LIMIT = 65_536
"""Bytes of a frame at most."""
PART_LIMIT = 65_000
"""Bytes of data in one frame at most; more is sent in parts."""
KIND_LIMIT = 64
"""Bytes of the name of a kind of channel at most."""
REASON_LIMIT = 200
"""Bytes of a reason at most."""

_VERSION = 1
_HEADER = struct.Struct(">BBB16sQQQ")
_CREDIT = struct.Struct(">II")
_MORE, _ANSWER, _REFUSED, _UNSERVED = 1, 2, 4, 8
_FLAGS = _MORE | _ANSWER | _REFUSED | _UNSERVED


class Word(IntEnum):
    """What a frame says."""

    OPEN = 1
    """A new channel: its kind, and the first part of its head."""
    DATA = 2
    CREDIT = 3
    """The other side may send so many bytes and frames more."""
    END = 4
    """No more data from here."""
    CLOSE = 5
    """The channel is over in both directions; refused, or done."""
    BEAT = 6
    """The worker lives. Nothing else."""
    RESET = 7
    """The link is not known here, or not any more. It has no number."""


class Frame(msgspec.Struct, frozen=True):
    """One frame; what a word does not use is empty."""

    word: Word
    channel: int = 0
    data: bytes = b""
    """A part of a head or of data."""
    more: bool = False
    """Whether another part of the same head or data follows."""
    answer: bool = False
    """Whether the other side shall send something at once."""
    refused: bool = False
    """Of CLOSE: whether it went wrong; `text` says how."""
    unserved: bool = False
    """Of CLOSE: whether it was refused before a handler began."""
    text: str = ""
    """Of OPEN the kind, of CLOSE the reason."""
    size: int = 0
    """Of CREDIT: bytes."""
    frames: int = 0
    """Of CREDIT: frames."""
    sender: bytes = bytes(16)
    """The worker that sent it; this and what follows is the link's to say."""
    link: int = 0
    number: int = 0


_WORDS = {int(word): word for word in Word}
_WITHOUT_CHANNEL = (Word.BEAT, Word.RESET)


def encode(frame: Frame) -> bytes:
    """A frame as bytes; the caller keeps within the limits."""
    flags = _MORE * frame.more | _ANSWER * frame.answer
    flags |= _REFUSED * frame.refused | _UNSERVED * frame.unserved
    header = _HEADER.pack(
        _VERSION, frame.word, flags, frame.sender, frame.link, frame.number, frame.channel
    )
    match frame.word:
        case Word.DATA:
            return header + frame.data
        case Word.OPEN:
            kind = frame.text.encode()
            return b"".join((header, bytes((len(kind),)), kind, frame.data))
        case Word.CREDIT:
            return header + _CREDIT.pack(frame.size, frame.frames)
        case Word.CLOSE:
            return header + short(frame.text).encode()
        case _:
            return header


def decode(data: bytes) -> Frame | None:
    """The frame in some bytes; None where they are none."""
    if not _HEADER.size <= len(data) <= FRAME_LIMIT:
        return None
    version, number_of_word, flags, sender, link, number, channel = _HEADER.unpack_from(data)
    word = _WORDS.get(number_of_word)
    if version != _VERSION or word is None or flags > _FLAGS:
        return None
    if (channel == 0) != (word in _WITHOUT_CHANNEL) or (number == 0) != (word is Word.RESET):
        return None
    frame = Frame(
        word,
        channel,
        more=bool(flags & _MORE),
        answer=bool(flags & _ANSWER),
        refused=bool(flags & _REFUSED),
        unserved=bool(flags & _UNSERVED),
        sender=sender,
        link=link,
        number=number,
    )
    return _with_rest(frame, data[_HEADER.size :])


def short(reason: str) -> str:
    """A reason as long as a frame may have it."""
    return reason.encode(errors="replace")[:REASON_LIMIT].decode(errors="ignore")


def split(data: bytes) -> list[bytes]:
    """Data as the parts in which it is sent; at least one."""
    if len(data) <= PART_LIMIT:
        return [data]
    return [data[at : at + PART_LIMIT] for at in range(0, len(data), PART_LIMIT)]


def _with_rest(frame: Frame, rest: bytes) -> Frame | None:
    """A frame with what follows its header."""
    match frame.word:
        case Word.DATA:
            return _with_part(frame, rest)
        case Word.OPEN:
            return _opening(frame, rest)
        case Word.CREDIT if len(rest) == _CREDIT.size:
            size, frames = _CREDIT.unpack(rest)
            return msgspec.structs.replace(frame, size=size, frames=frames)
        case Word.CLOSE:
            text = _text(rest, REASON_LIMIT)
            return None if text is None else msgspec.structs.replace(frame, text=text)
        case Word.END | Word.BEAT | Word.RESET if not rest:
            return frame
        case _:
            return None


def _opening(frame: Frame, rest: bytes) -> Frame | None:
    if not rest:
        return None
    end = 1 + rest[0]
    kind = _text(rest[1:end], KIND_LIMIT) if end <= len(rest) else None
    if not kind:
        return None
    return _with_part(msgspec.structs.replace(frame, text=kind), rest[end:])


def _with_part(frame: Frame, part: bytes) -> Frame | None:
    return msgspec.structs.replace(frame, data=part) if len(part) <= PART_LIMIT else None


def _text(data: bytes, limit: int) -> str | None:
    if len(data) > limit:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None
