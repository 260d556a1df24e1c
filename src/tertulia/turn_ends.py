"""How a turn ends: what its last commit says, and what of the turn it keeps."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from tertulia import events
from tertulia.codec import encode
from tertulia.drafting import Draft
from tertulia.errors import TurnInterrupted, WorkerLost
from tertulia.messages import Message
from tertulia.recovery import close_turn
from tertulia.stores.base import Request
from tertulia.values import storable

if TYPE_CHECKING:
    from tertulia.turns import Turn


class End(msgspec.Struct, frozen=True):
    """An end that a turn shall have."""

    kind: str
    """The type of its last event."""
    body: Mapping[str, Any] = {}
    keep: bool = False
    """What the turn did stays visible; else only where it did something in the world."""
    first: Callable[[Draft], Awaitable[None]] | None = None
    """Drafts what goes before the last event."""

    @property
    def completes(self) -> bool:
        """Whether the turn has its answer."""
        return self.kind == events.TURN_COMPLETED

    def bare(self) -> End:
        """The same end without what cannot be said."""
        return End(self.kind, keep=self.keep)


def failed(error: BaseException) -> End:
    """The end by an error."""
    said = storable(str(error)[:1_000])
    return End(events.TURN_FAILED, {"error": type(error).__name__, "text": said})


def interrupted(turn: Turn, reason: str, partial: str | None) -> End:
    """The end on request, with the part of an answer that was handed out by then."""

    async def add_partial(draft: Draft) -> None:
        draft.close_calls(turn.trace.unstarted)
        draft.message(
            Message.assistant(partial or "", agent=turn.agent, metadata={"interrupted": True})
        )

    first = add_partial if partial else None
    return End(events.TURN_INTERRUPTED, {"reason": reason}, True, first)


def stopped(turn: Turn, reason: str) -> TurnInterrupted | WorkerLost:
    """What whoever waits for a turn is told when it was stopped."""
    if turn.lost:
        return WorkerLost(
            f"turn {turn.number} of session {turn.conversation.id!r} was stopped: {reason}; "
            "read before you repeat, or repeat with the same idempotency key"
        )
    return TurnInterrupted(reason, session_id=turn.conversation.id)


async def draft_end(turn: Turn, end: End, draft: Draft) -> None:
    """Draft the end of a turn."""
    conversation = turn.conversation
    if end.first is not None:
        await end.first(draft)
    kept = end.keep or turn.trace.outcome() == "interrupted"
    if kept and turn.staged:
        draft.close_calls(turn.trace.unstarted)
        turn.draft_staged(draft)
    store = conversation.host.store
    for write in turn.writes if kept else ():
        await write.draft(draft, store)
    await close_turn(store, draft, turn.trace, end.kind, dict(end.body), keep=end.keep)
    if turn.asked.key is not None:
        draft.request = _request(turn, "done" if end.completes else "failed")
    await conversation.trim(draft)


def _request(turn: Turn, status: Literal["done", "failed"]) -> Request:
    return Request(
        key=turn.asked.key or "",
        digest=turn.asked.digest(),
        turn=turn.number,
        status=status,
        result=encode(turn.result, "the result") if status == "done" else None,
        time=turn.conversation.host.clock.now(),
    )
