"""A session of the HTTP API: found, and shown to its owner only."""

from __future__ import annotations

from urllib.parse import quote

import msgspec

from tertulia import approvals
from tertulia.conversation import Conversation
from tertulia.errors import InvalidInput
from tertulia.handle import conversation_of
from tertulia.opening import Opening
from tertulia.server import views
from tertulia.server.operations import Call
from tertulia.server.requests import OfSession
from tertulia.server.views import SessionDetail
from tertulia.session import Session
from tertulia.stores.base import SessionRow

PREFIX = "/v1/sessions"


class Reached(msgspec.Struct, frozen=True):
    """A session that exists and that the caller may use."""

    session: Session
    conversation: Conversation
    opening: Opening
    row: SessionRow


async def reach(call: Call) -> Reached:
    """The session that a path names. Raises SessionNotFound, and AccessDenied for others' ones.

    Somebody with a name sees the sessions that are theirs; not those that have no owner.
    """
    asked: OfSession = call.query
    runtime = call.service.runtime
    session = runtime.session(call.path["id"], app_name=asked.app_name, user_id=call.user)
    conversation = conversation_of(runtime, asked.app_name, session.id)
    opening = Opening(user=call.user)
    row = await conversation.existing(opening)
    if call.user is not None and row.user != call.user:
        raise conversation.denied()
    return Reached(session, conversation, opening, row)


async def described(reached: Reached) -> SessionDetail:
    """A session as it stands now."""
    conversation, opening = reached.conversation, reached.opening
    waiting = await approvals.pending(conversation, opening)
    return views.detail(await conversation.existing(opening), waiting)


def check_new_id(session_id: str | None) -> str | None:
    """An id for a new session, which a path has to be able to name. Raises InvalidInput."""
    if session_id is not None and ("/" in session_id or session_id in (".", "..")):
        raise InvalidInput(f"a path cannot name session {session_id!r}; leave out slashes and dots")
    return session_id


def location(session_id: str, app_name: str | None) -> str:
    """Where a session is."""
    app = "" if app_name is None else f"?app_name={quote(app_name, safe='')}"
    return f"{PREFIX}/{quote(session_id, safe='')}{app}"
