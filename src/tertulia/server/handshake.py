"""What a client says first, and why it may not be let in."""

from __future__ import annotations

from urllib.parse import parse_qsl

import msgspec

from tertulia.errors import AgentError, InvalidInput
from tertulia.wire.events import SystemInit


class Refused(Exception):
    """The connection is not let in; has the code and the reason of its close."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Gone(Exception):
    """The client left before it said anything."""


def reason_of(error: AgentError) -> str:
    """Why a session cannot be had; not whose it is."""
    if isinstance(error, PermissionError):
        return "the session belongs to somebody else"
    return str(error)


def with_query(init: SystemInit, query: bytes) -> SystemInit:
    """The first frame, with what the query says where the frame says nothing.

    Raises InvalidInput.
    """
    said = dict(parse_qsl(query.decode("latin-1")))
    session_id = init.session_id or said.get("session_id")
    after = init.after
    if after is None and "after" in said:
        if not (said["after"].isascii() and said["after"].isdigit()) or len(said["after"]) > 15:
            raise InvalidInput("after is a seq: a whole number from 0 on")
        after = int(said["after"])
    if after is not None and after < 0:
        raise InvalidInput("after is a seq: a whole number from 0 on")
    return msgspec.structs.replace(init, session_id=session_id, after=after, token=None)
