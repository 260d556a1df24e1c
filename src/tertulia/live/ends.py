"""How the answers of agents end, in the log and for the client."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from tertulia import events as facts
from tertulia.events import Event
from tertulia.session import Session
from tertulia.wire.events import LLMRequest, ResponseEnd

ENDS = {
    facts.TURN_COMPLETED: (False, False),
    facts.TURN_INTERRUPTED: (True, False),
    facts.TURN_FAILED: (True, True),
    facts.TURN_ABANDONED: (True, True),
}
"""How a turn ended: whether its answer was cut off, and whether it is no part of the history."""
_PREFIX = "turn-"


def request_id_of(turn: int) -> str:
    """The id of the answer that an agent gives in a turn."""
    return f"{_PREFIX}{turn}"


def turn_of(request_id: str | None) -> int | None:
    """The turn in which an agent gives an answer; None for the answers of other nodes."""
    given = (request_id or "").removeprefix(_PREFIX)
    return int(given) if given != request_id and given.isdecimal() and given.isascii() else None


def nature_of(message: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a client is told of an answer that is no plain one, by the metadata of its message:
    its `kind`, such as ``ban``, and the `policy` that refused."""
    given = message or {}
    kind, policy = given.get("kind"), given.get("policy")
    told = {"kind": kind, "policy": policy} if isinstance(kind, str) else {}
    return {name: value for name, value in told.items() if isinstance(value, str)}


def answer_id(request: LLMRequest) -> str:
    """The id of the answer that a node gives by itself: none that a turn of an agent could have."""
    given = request.id or uuid4().hex
    return f"answer-{given}" if given.startswith(_PREFIX) else given


async def end_of(session: Session, turn: int) -> Event | None:
    """How and where a turn ended, if it has."""
    found = await session.events(since=turn, types=list(ENDS))
    return next((event for event in found if event.turn == turn), None)


def end_event(ended: Event) -> ResponseEnd:
    """The end of the answer of a turn, as the client is told of it."""
    cut, dropped = ENDS[ended.type]
    return ResponseEnd(
        request_id=request_id_of(ended.turn), interrupted=cut, discarded=dropped, direction="out"
    )
