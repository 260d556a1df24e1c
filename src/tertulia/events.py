"""Events: the facts that a log is made of, their types, and the chain of digests.

The digest of event n is SHA-256 over the digest of event n - 1, the header of event n and the
digest of its body; the digest of a body is SHA-256 over a random salt and the body. A body can
therefore be erased (with its salt) and the chain still verifies, while nothing about the body
can be guessed from what is left. Headers carry internal ids only.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any, Final, Literal

import msgspec

from tertulia.clock import to_datetime, to_iso
from tertulia.errors import InvalidInput

DIGEST_BYTES = 32
MAX_BODY = 1_000_000

Actor = Literal["user", "agent", "tool", "app", "runtime"]

MESSAGE_ADDED: Final = "message.added"
TURN_STARTED: Final = "turn.started"
TURN_COMPLETED: Final = "turn.completed"
TURN_FAILED: Final = "turn.failed"
TURN_INTERRUPTED: Final = "turn.interrupted"
TURN_ABANDONED: Final = "turn.abandoned"
TURN_SUSPENDED: Final = "turn.suspended"
TURN_RESUMED: Final = "turn.resumed"
MESSAGE_STAGED: Final = "message.staged"
INPUT_RECEIVED: Final = "input.received"
INPUT_WITHDRAWN: Final = "input.withdrawn"
TOOL_CALLED: Final = "tool.called"
TOOL_RETURNED: Final = "tool.returned"
TOOL_FAILED: Final = "tool.failed"
APPROVAL_REQUESTED: Final = "approval.requested"
APPROVAL_GRANTED: Final = "approval.granted"
APPROVAL_REJECTED: Final = "approval.rejected"
HANDOFF: Final = "handoff"
FAILOVER: Final = "failover"
OUTPUT_REJECTED: Final = "output.rejected"
POLICY_CHECKED: Final = "policy.checked"
POLICY_BANNED: Final = "policy.banned"
POLICY_UNBANNED: Final = "policy.unbanned"
RESCUE: Final = "rescue"
STATE_SET: Final = "state.set"
STATE_DELETED: Final = "state.deleted"
STATE_STAGED: Final = "state.staged"
SESSION_CREATED: Final = "session.created"
SESSION_FORKED: Final = "session.forked"
SESSION_REWOUND: Final = "session.rewound"
SESSION_PRUNED: Final = "session.pruned"
SESSION_CLEARED: Final = "session.cleared"
SESSION_ERASED: Final = "session.erased"
SESSION_ENDED: Final = "session.ended"
SESSION_REOPENED: Final = "session.reopened"
SESSION_CHANGED: Final = "session.changed"
RETENTION_SET: Final = "retention.set"
HOLD_SET: Final = "hold.set"
HOLD_RELEASED: Final = "hold.released"
USAGE: Final = "usage"
LIVE_CONNECTED: Final = "live.connected"
LIVE_DISCONNECTED: Final = "live.disconnected"
LIVE_RECEIVED: Final = "live.received"
LIVE_SENT: Final = "live.sent"
LIVE_CONTEXT: Final = "live.context"

EVENT_TYPES: dict[str, str] = {
    MESSAGE_ADDED: "a message became part of the conversation",
    TURN_STARTED: "a request took hold of the session",
    TURN_COMPLETED: "the turn ended with its answer",
    TURN_FAILED: "the turn ended with an error; the history is as if it had not happened",
    TURN_INTERRUPTED: "the turn was stopped; what had happened by then stays",
    TURN_ABANDONED: "the turn was left open by a process that died, and was closed",
    TURN_SUSPENDED: "the turn waits for an approval, and nobody holds the session",
    TURN_RESUMED: "a turn that was suspended or left behind goes on",
    MESSAGE_STAGED: "a tool wrote a message, which comes after the results of the running calls",
    INPUT_RECEIVED: "an input that had to wait entered the log",
    INPUT_WITHDRAWN: "an input that waited was taken back",
    TOOL_CALLED: "a tool is about to run",
    TOOL_RETURNED: "a tool ended with a result",
    TOOL_FAILED: "a tool raised, did not exist, or was called with bad arguments",
    APPROVAL_REQUESTED: "a tool call waits for somebody to approve it",
    APPROVAL_GRANTED: "a tool call was approved",
    APPROVAL_REJECTED: "a tool call was rejected, and will not run",
    HANDOFF: "an agent gave the floor to another one",
    FAILOVER: "a model failed, and another agent went on with the turn",
    OUTPUT_REJECTED: "an answer did not fit its schema, and the model was asked again",
    POLICY_CHECKED: "the policies of a swarm looked at an input or an output",
    POLICY_BANNED: "a client was banned from a swarm, or by one of its policies",
    POLICY_UNBANNED: "a ban was lifted",
    RESCUE: "an answer, a tool or a model failed, and the swarm did something about it",
    STATE_SET: "a value of the scoped state was set",
    STATE_DELETED: "a value of the scoped state was deleted",
    STATE_STAGED: "a tool set a value, which takes effect when its turn is kept",
    SESSION_CREATED: "the session came into being",
    SESSION_FORKED: "the session branched off another one",
    SESSION_REWOUND: "the view went back to an earlier position",
    SESSION_PRUNED: "older messages were hidden",
    SESSION_CLEARED: "all messages were hidden",
    SESSION_ERASED: "bodies were erased for good",
    SESSION_ENDED: "the conversation was ended",
    SESSION_REOPENED: "the conversation goes on",
    SESSION_CHANGED: "metadata or the system prompt changed",
    RETENTION_SET: "the retention policy changed",
    HOLD_SET: "a legal hold was set",
    HOLD_RELEASED: "a legal hold was released",
    USAGE: "what a model call consumed",
    LIVE_CONNECTED: "a client connected to the live session, or came back to it",
    LIVE_DISCONNECTED: "the client of the live session left, or was lost",
    LIVE_RECEIVED: "the client said something that is no message, or not yet: a turn runs",
    LIVE_SENT: "the client was told something that is no message, or not yet: a turn runs",
    LIVE_CONTEXT: "the context of the live session changed while a turn runs",
}


class Record(msgspec.Struct, frozen=True, gc=False):
    """One event as it is stored: header, body bytes, salt and digest.

    ``body`` and ``salt`` are None after erasure; then ``body_digest`` holds what they gave.
    ``turn`` is the ``seq`` of the event that opened the turn. ``time`` is in microseconds.
    """

    seq: int
    type: str
    time: int
    actor: str
    turn: int
    body: bytes | None
    salt: bytes | None
    digest: bytes
    body_digest: bytes | None = None


class Event(msgspec.Struct, frozen=True):
    """One fact of a session's log, as it is handed out.

    ``body`` is JSON-able data, or None after erasure; ``time`` is microseconds since 1970 UTC
    and informational, the order is ``seq``.
    """

    session_id: str
    seq: int
    type: str
    time: int
    actor: str
    turn: int
    body: dict[str, Any] | None
    digest: str

    @property
    def timestamp(self) -> str:
        """The time as ISO 8601 text in UTC."""
        return to_iso(self.time)

    @property
    def moment(self) -> Any:
        """The time as an aware datetime in UTC."""
        return to_datetime(self.time)

    def __getitem__(self, key: str) -> Any:
        if key in self.__struct_fields__ or key == "timestamp":
            return getattr(self, key)
        raise KeyError(key)

    def to_dict(self) -> dict[str, Any]:
        """The event as JSON-able data."""
        data: dict[str, Any] = msgspec.to_builtins(self)
        return {"timestamp": self.timestamp, **data}


def genesis(uid: bytes) -> bytes:
    """The digest that the first link of a new log covers."""
    return sha256(b"tertulia.1/new\0" + uid).digest()


def branch(uid: bytes, parent_uid: bytes, seq: int, parent_digest: bytes) -> bytes:
    """The digest that the first link of a fork covers: its parent's chain up to ``seq``."""
    return sha256(b"tertulia.1/fork\0%b%b%d\0%b" % (uid, parent_uid, seq, parent_digest)).digest()


def body_digest(salt: bytes, body: bytes) -> bytes:
    """SHA-256 of the salted body."""
    return sha256(salt + body).digest()


def link(previous: bytes, record_header: bytes, of_body: bytes) -> bytes:
    """The digest of an event: SHA-256 of the previous digest, its header and its body's digest."""
    return sha256(previous + record_header + of_body).digest()


def header(uid: bytes, seq: int, kind: str, time: int, actor: str, turn: int) -> bytes:
    """The header as bytes; no field can contain the separator."""
    return uid + f"{seq}\0{kind}\0{time}\0{actor}\0{turn}\0".encode()


def check_type(kind: str) -> str:
    """An event type of the documented set, or one of the application's under ``app.``.

    Raises InvalidInput.
    """
    if kind in EVENT_TYPES or (kind.startswith("app.") and len(kind) <= 64 and kind.isprintable()):
        return kind
    raise InvalidInput(f"event type {kind!r} does not exist; name your own types app.<name>")
