"""Holds that could not be let go of when it was time, because the store did not answer.

Such a turn may be open in the log and held by a worker that lives: nobody else may close it. The
next change of its session in this process would; others would wait for that.
"""

from __future__ import annotations

import asyncio
import logging

import msgspec

from tertulia import doors, events
from tertulia.conversation import MAX_RACES, Conversation
from tertulia.drafting import Draft
from tertulia.errors import AgentError, OutcomeUnknown, StoreClosed
from tertulia.recovery import close_abandoned
from tertulia.stores.base import SessionRow

FIRST, LAST = 1.0, 30.0
"""Seconds between two attempts: they double."""
ATTEMPTS = 60
"""How often it is tried: for half an hour. After that the next change, or `tertulia unlock`, is
left."""
MOST = 10_000
"""Turns that are waited for at once."""

_log = logging.getLogger(__name__)
_waiting: set[asyncio.Task[None]] = set()


class Hold(msgspec.Struct, frozen=True):
    """One hold of this worker on the open turn of a session: no other has its turn and epoch."""

    turn: int
    epoch: int
    resumed: bool = False
    """It is of a turn that was suspended or left before, and is open without the hold too."""


class Taking:
    """An attempt to take hold of a session, of which it may stay unknown whether it was made."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._hold: Hold | None = None

    async def made(self, draft: Draft, hold: Hold) -> bool:
        """Commit the draft that takes the hold; as `Conversation.made`."""
        self._hold = hold
        try:
            made = await self._conversation.made(draft)
        except Exception as error:
            if not isinstance(error, OutcomeUnknown):
                self._hold = None
            raise
        if not made:
            self._hold = None
        return made

    async def undo(self) -> None:
        """Let go of what was taken or may have been, later where that cannot be now."""
        if self._hold is None:
            return
        try:
            await _let_go(self._conversation, self._hold)
        except AgentError:
            let_go_later(self._conversation, self._hold)


def let_go_later(conversation: Conversation, hold: Hold) -> None:
    """Let go of a hold once the store answers again, unless it is no longer there.

    It needs the event loop of the caller, and ends with it. Where none runs, as in a script that
    is synchronous, the next change of the session in this process closes the turn.
    """
    loop = doors.current_loop() or doors.blocked_loop()
    if loop is None or len(_waiting) >= MOST:
        why = "no event loop runs" if loop is None else f"{MOST} wait to be closed already"
        _log.warning(
            "turn %d of session %r may be open until the next change of it: %s",
            hold.turn,
            conversation.id,
            why,
        )
        return
    task = loop.create_task(_try_again(conversation, hold))
    _waiting.add(task)
    task.add_done_callback(_waiting.discard)


async def _try_again(conversation: Conversation, hold: Hold) -> None:
    pause = FIRST
    for _ in range(ATTEMPTS):
        await asyncio.sleep(pause)
        pause = min(2 * pause, LAST)
        try:
            if await _gone(conversation, hold):
                return
        except StoreClosed:
            return
        except AgentError as error:
            _log.info("turn %d cannot be closed yet: %s", hold.turn, type(error).__name__)
    _log.warning("turn %d of session %r may be open", hold.turn, conversation.id)


async def _gone(conversation: Conversation, hold: Hold) -> bool:
    """Let go of a hold if nobody is at the gate; whether it is gone.

    The store is waited for before the gate is entered, which others want to pass.
    """
    store = conversation.host.store
    await store.drop_inputs(())  # whatever was submitted before is carried out then
    if not _is_held(conversation, await conversation.row(), hold):
        return True
    if not conversation.gate.try_enter():
        return False
    try:
        await _let_go(conversation, hold)
    finally:
        conversation.gate.leave()
    return True


async def _let_go(conversation: Conversation, hold: Hold) -> None:
    """Let go of a hold that is there; the gate is ours. The fence refuses what is not that hold."""
    for _ in range(MAX_RACES):
        row = await conversation.settled_row()
        if row is None or not _is_held(conversation, row, hold):
            return
        if hold.resumed:
            draft = conversation.draft_on(row, hold.turn)
            draft.add(events.TURN_SUSPENDED, {"calls": list(row.open_calls)})
            draft.after["holder"] = None
        else:
            draft = conversation.draft_on(row)
            await close_abandoned(conversation.host.store, draft)
        if await conversation.made(draft):
            return
    raise conversation.outrun()


def _is_held(conversation: Conversation, row: SessionRow | None, hold: Hold) -> bool:
    """Whether a session is held by this hold, and not by an earlier or a later one."""
    if row is None or row.holder != conversation.host.store.worker:
        return False
    return (row.open_turn, row.epoch) == (hold.turn, hold.epoch)
