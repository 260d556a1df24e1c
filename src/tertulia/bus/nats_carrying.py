"""Events as bytes, on their way from one process to another. Nothing here waits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from tertulia.bus.base import BusEvent

MAX_EVENT = 512 * 1024
"""Bytes of JSON that an event may have to be carried, and beyond which a message takes no more."""


class Carried(msgspec.Struct, frozen=True, array_like=True):
    """A message: the bus it is from, the buses that get it apart, and the events."""

    bus: str
    apart: list[str]
    events: list[BusEvent]


unpack = msgspec.json.Decoder(Carried).decode
"""The message of some bytes. Raises msgspec.MsgspecError and UnicodeDecodeError."""


def encoded(event: BusEvent) -> bytes | None:
    """The event as JSON; None where it is too large, or cannot be JSON."""
    try:
        data = msgspec.json.encode(event)
    except (TypeError, ValueError, RecursionError):
        return None
    return data if len(data) <= MAX_EVENT else None


def messages(bus: str, apart: list[str], events: Iterable[bytes]) -> Iterator[tuple[bytes, int]]:
    """The messages that carry these events, with how many are in each."""
    head = msgspec.json.encode([bus, apart])[:-1]
    together: list[bytes] = []
    size = 0
    for event in events:
        if together and size + len(event) > MAX_EVENT:
            yield _message(head, together), len(together)
            together, size = [], 0
        together.append(event)
        size += len(event)
    if together:
        yield _message(head, together), len(together)


def _message(head: bytes, events: list[bytes]) -> bytes:
    return b"".join((head, b",[", b",".join(events), b"]]"))
