"""Which messages a position shows, and where it is safe to cut."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from tertulia.errors import InvalidInput
from tertulia.messages import Message


class Segment(msgspec.Struct, frozen=True, gc=False):
    """The events of one session with low < seq <= high, as one link of a view's chain."""

    session: int
    low: int
    high: int


def check_limit(limit: int | None) -> int | None:
    """A limit: None for none, 0 for nothing. Raises InvalidInput for anything but a count."""
    if limit is None:
        return None
    return check_position(limit, "limit")


def check_position(value: Any, what: str) -> int:
    """A whole number that is not negative. Raises InvalidInput."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise InvalidInput(f"{what} must be a whole number and not negative, not {value!r}")
    return value


def subtract(segment: Segment, gaps: Iterable[tuple[int, int]], floor: int = 0) -> list[Segment]:
    """The parts of a segment above `floor` and outside of gaps (low, high], newest first.

    The gaps may be given in any order and may overlap.
    """
    low = max(segment.low, floor)
    high = segment.high
    parts: list[Segment] = []
    for gap_low, gap_high in sorted(gaps, key=lambda gap: -gap[1]):
        if gap_high <= low or gap_low >= high:
            continue
        if gap_high < high:
            parts.append(Segment(segment.session, gap_high, high))
        high = min(high, gap_low)
    if low < high:
        parts.append(Segment(segment.session, low, high))
    return parts


def whole_start(messages: Sequence[Message]) -> list[Message]:
    """Without the tool results at the start, whose calls were left out by a limit."""
    start = 0
    while start < len(messages) and messages[start].role == "tool":
        start += 1
    return list(messages[start:])


def newest_group(messages: list[Message]) -> list[Message]:
    """The newest message, with its whole tool group where it ends one."""
    start = len(messages) - 1
    while start > 0 and messages[start].role == "tool":
        start -= 1
    return messages[start:]


def whole_end(messages: list[Message]) -> list[Message]:
    """Without a tool group at the end of which results were left out by a cursor."""
    start = len(messages) - 1
    while start >= 0 and messages[start].role == "tool":
        start -= 1
    calls = messages[start].tool_calls if start >= 0 else None
    if not calls:
        return messages
    answered = {message.tool_call_id for message in messages[start + 1 :]}
    return messages if answered.issuperset(call.id for call in calls) else messages[:start]
