"""What a tool, and instructions that are a function, get to know of the turn they run in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tertulia.session import Session
from tertulia.state import State
from tertulia.turns import Turn


class RunContext:
    """The turn that a tool runs in: a parameter so annotated is left out of the tool's schema."""

    __slots__ = ("agent", "call_id", "key", "metadata", "session", "turn")

    def __init__(
        self,
        *,
        session: Session,
        turn: Turn,
        agent: str | None,
        metadata: Mapping[str, Any],
        key: str = "",
        call_id: str = "",
    ) -> None:
        self.session = session
        self.turn = turn
        self.agent = agent
        """The name of the agent."""
        self.metadata = metadata
        """What the caller passed as ``metadata=``."""
        self.key = key
        """The same for the same call however often it runs: hand it to the outside world as an
        idempotency key. Empty where there is no call."""
        self.call_id = call_id
        """The id of the tool call. Empty where there is no call."""

    @property
    def state(self) -> State:
        """The state of the session; what a tool sets is stored with the turn."""
        return self.session.state

    @property
    def cancelled(self) -> bool:
        """Whether the turn has ended or was asked to stop: long synchronous tools look at it."""
        return self.turn.stop.done or self.turn.closed

    def for_call(self, call_id: str) -> RunContext:
        """The context of one tool call."""
        return RunContext(
            session=self.session,
            turn=self.turn,
            agent=self.agent,
            metadata=self.metadata,
            key=f"{self.turn.row.uid.hex()}:{self.turn.number}:{call_id}",
            call_id=call_id,
        )
