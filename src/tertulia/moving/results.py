"""What became of a move."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

Progress = Callable[[int, int], None]
"""Told the events that are done, and how many there are."""


class Left(msgspec.Struct, frozen=True, kw_only=True):
    """A session that stayed where it was, or whose move is yet to be ended."""

    session_id: str
    app: str | None
    reason: str


class Moved(msgspec.Struct, kw_only=True):
    """What was carried over, or with `dry_run` what would be."""

    sessions: int = 0
    events: int = 0
    bytes: int = 0
    """Bytes of texts and bodies."""
    values: int = 0
    """Rows beside the sessions: shared state, entities, documents, memories and their owners."""
    receipts: int = 0
    before: int = 0
    """Sessions that an earlier run had carried over."""
    left: list[Left] = []
    dry_run: bool = False
