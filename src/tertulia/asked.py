"""What a turn is asked for with."""

from __future__ import annotations

from hashlib import sha256
from typing import Any, Literal

import msgspec

from tertulia.messages import Message

Busy = Literal["queue", "reject", "interrupt"]


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a turn is asked for with."""

    messages: tuple[Message, ...] = ()
    busy: Busy = "queue"
    timeout: float | None = None
    """Seconds to wait for the session; None is 600."""
    key: str | None = None
    """The caller's idempotency key."""
    agent: str | None = None
    """The agent that is asked; None leaves it to whoever has the floor."""
    metadata: dict[str, Any] | None = None
    options: dict[str, Any] | None = None
    """What else whoever resumes the turn has to know."""
    notes: tuple[tuple[str, dict[str, Any]], ...] = ()
    """Events that go into the commit that begins the turn: their types and bodies."""

    def digest(self) -> bytes:
        """SHA-256 of what makes two requests the same."""
        return sha256(msgspec.json.encode((self.messages, self.agent))).digest()
