"""The end of turns that could not be written when it came, because the store did not answer.

Such a turn is open in the log, and held by a worker that lives: nobody else may close it.
"""

from __future__ import annotations

import asyncio
import logging

from tertulia.conversation import nothing
from tertulia.errors import AgentError, StoreClosed
from tertulia.opening import Opening
from tertulia.turns import Turn

FIRST, LAST = 1.0, 30.0
"""Seconds between two attempts: they double."""
ATTEMPTS = 60
"""How often it is tried: for half an hour. After that `tertulia unlock` is left."""
MOST = 10_000
"""Turns that are waited for at once."""

_log = logging.getLogger("tertulia.agents")
_waiting: set[asyncio.Task[None]] = set()


def close_later(turn: Turn) -> None:
    """Close a turn in the log once the store answers again, unless somebody else has."""
    if len(_waiting) >= MOST:
        _log.error("turn %d is left open: %d wait to be closed already", turn.number, MOST)
        return
    task = asyncio.get_running_loop().create_task(_close(turn))
    _waiting.add(task)
    task.add_done_callback(_waiting.discard)


async def _close(turn: Turn) -> None:
    pause = FIRST
    for _ in range(ATTEMPTS):
        await asyncio.sleep(pause)
        pause = min(2 * pause, LAST)
        try:
            if not await _is_open(turn):
                return
            await turn.conversation.append(Opening(), nothing)
        except StoreClosed:
            return
        except AgentError as error:
            _log.info("turn %d cannot be closed yet: %s", turn.number, type(error).__name__)


async def _is_open(turn: Turn) -> bool:
    """Whether the turn is open in the log, and this worker holds it."""
    conversation = turn.conversation
    row = await conversation.row()
    mine = row is not None and row.holder == conversation.host.store.worker
    return row is not None and mine and row.open_turn == turn.number and conversation.turn is None
