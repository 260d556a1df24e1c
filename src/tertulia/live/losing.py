"""A live session that is another worker's now, or may be soon: it ends here, and writes nothing."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from tertulia.errors import StaleWriter
from tertulia.live import link as links

if TYPE_CHECKING:
    from tertulia.live.session import AgentSession

_log = logging.getLogger("tertulia.live")


def lose(session: AgentSession, reason: str) -> None:
    """Stop what is being answered, tell the client to come back, and end without another word in
    the log."""
    if session.complete or session.lost:
        return
    _log.info("live session %s does not go on here: %s", session.session_id, reason)
    session.lost = True
    session.scribe.stop(reason)
    session.sink.stop()
    session.presence.leave(links.RESTARTING, f"{reason}: come back")
    session.finish(reason)


def lost_by(session: AgentSession, error: BaseException) -> bool:
    """Whether an error says that another worker goes on with the session; then it is lost.

    Where the store has one worker, it says no more than that one append was refused.
    """
    if not isinstance(error, StaleWriter) or error.session_id != session.session_id:
        return False
    if session.conversation._host.cluster is None:  # pyright: ignore[reportPrivateUsage]
        return False
    lose(session, "another worker has taken the session over")
    return True
