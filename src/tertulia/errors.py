"""Every error that Tertulia raises, in one tree.

AgentError
├── UsageError                  the call is wrong; the text says what to write instead
│   ├── InvalidInput            (also ValueError) a value that cannot be accepted
│   │   ├── InvalidMessage      a message that no model could read
│   │   ├── InvalidFrame        a frame of a live client that cannot be understood; has ``code``
│   │   └── ScopeError          a scope that does not exist or has no owner here
│   ├── GraphError              (also ValueError) the event graph is not put together rightly
│   │   └── GraphCycleError     an event could come back to a node; has ``path``
│   ├── ConfigurationError      a setting is missing or contradicts another
│   │   ├── MissingExtra        (also ImportError) an optional package is not installed
│   │   └── UnknownName         (also LookupError) a name that nothing here has
│   ├── NavigationError         a change of agent that is refused
│   └── ForkedRuntimeError      the runtime was made before ``os.fork``
├── SessionError                this session cannot do this now; has ``session_id``
│   ├── SessionNotFound         (also LookupError)
│   ├── SessionExists
│   ├── SessionEnded
│   ├── SessionMoved            it was moved to another store
│   ├── AccessDenied            (also PermissionError) the session has another owner
│   ├── SessionBusy             somebody holds it, and ``busy="reject"`` or the queue is full
│   │   ├── RateLimited         the client asks too often; has ``retry_after``
│   │   ├── TurnTimeout         (also TimeoutError) waited until the deadline
│   │   └── ApprovalPending     its turn waits for a person to approve a tool call
│   ├── ClientDisposed          the client session was disposed
│   ├── NotConnected            nobody is connected to the client session
│   ├── TurnInterrupted         the turn was stopped on request
│   ├── StaleWriter             the hold was lost; nothing was written
│   ├── IdempotencyConflict     the key was used for another request
│   ├── RetentionRefused        ``immutable`` or a legal hold forbids it
│   └── HistoryErased           the position lies before what retention erased
├── Unauthorized                (also PermissionError) no token, or one that is not accepted
├── VersionConflict             somebody else changed this state first
├── CursorExpired               the log behind a cursor was re-created or restored
├── StoreError                  the store cannot do its work
│   ├── StoreClosed
│   ├── StoreReadOnly
│   ├── StoreUnavailable        locked, full, or on a file system that cannot keep the promise
│   ├── StoreCorrupt            what was read is not what was written
│   ├── NotAStore               the file is something else
│   ├── StoreTooNew             written by a newer version of Tertulia
│   └── OutcomeUnknown          an I/O error at commit; it may or may not be durable
├── WorkerLost                  the worker that serves this cannot be reached, or was lost
├── LiveError                   a live connection cannot do this; has ``code``
│   ├── ConnectionLost          the server could not be reached, or not again
│   ├── ConnectionDenied        the server does not let this client in
│   ├── ConnectionTaken         a newer connection has the session
│   └── ConnectionEnded         the client is closed, or the conversation has ended
├── ModelError                  the model provider failed
│   ├── RoutingError            every agent of a router failed; has ``errors``
│   └── UnusableAnswer          the model's answer is empty, or is not what may be said
├── ToolError                   a tool call cannot be made
├── PolicyError                 a policy raised or gave no verdict; has ``policy``
└── SchemaValidationError       (also ValueError) an answer does not fit its schema
"""

from __future__ import annotations


class AgentError(Exception):
    """The root: catch this to catch everything that Tertulia raises on purpose."""


class UsageError(AgentError):
    """The call is wrong; the text says what to write instead."""


class InvalidInput(UsageError, ValueError):
    """A value that cannot be accepted."""


class InvalidMessage(InvalidInput):
    """A message that no model could read."""


class InvalidFrame(InvalidInput):
    """A frame of a live client that cannot be understood; `code` is a word for programs."""

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


class ScopeError(InvalidInput):
    """A scope that does not exist, or has no owner in this session."""


class GraphError(UsageError, ValueError):
    """The event graph is not put together rightly; the text names the node or the edge."""


class GraphCycleError(GraphError):
    """An event could come back to a node; `path` names the nodes, from one back to itself."""

    def __init__(self, message: str, *, path: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.path = path


class ConfigurationError(UsageError):
    """A setting is missing or contradicts another."""


class MissingExtra(ConfigurationError, ImportError):
    """An optional package is not installed; the text gives its install line."""

    def __init__(self, extra: str, package: str) -> None:
        super().__init__(
            f"{package} is not installed; install it with: pip install 'tertulia[{extra}]'"
        )
        self.extra = extra


class UnknownName(ConfigurationError, LookupError):
    """A name that nothing here has; the text lists those that exist."""


class NavigationError(UsageError):
    """A change of agent that is refused; the text has the route, or the limit."""


class ForkedRuntimeError(UsageError):
    """The runtime was made before ``os.fork``; start child processes by spawn instead."""


class SessionError(AgentError):
    """This session cannot do this now."""

    def __init__(self, message: str, *, session_id: str | None = None) -> None:
        super().__init__(message)
        self.session_id = session_id


class SessionNotFound(SessionError, LookupError):
    """No session has this id."""


class SessionExists(SessionError):
    """A session with this id is there already."""


class SessionEnded(SessionError):
    """The conversation was ended; ``await session.reopen()`` goes on with it."""


class SessionMoved(SessionError):
    """The session was moved to another store; the text says where."""


class AccessDenied(SessionError, PermissionError):
    """The session belongs to another user."""


class SessionBusy(SessionError):
    """Somebody holds the session, and waiting was refused or the queue is full."""


class RateLimited(SessionBusy):
    """The client asks too often; `retry_after` is in seconds."""

    def __init__(self, message: str, *, retry_after: float, session_id: str | None = None) -> None:
        super().__init__(message, session_id=session_id)
        self.retry_after = retry_after


class TurnTimeout(SessionBusy, TimeoutError):
    """The session did not become free before the deadline."""


class ApprovalPending(SessionBusy):
    """The session's turn waits for a person to approve a tool call, or to reject it."""


class ClientDisposed(SessionError):
    """The client session was disposed; ask the runtime for it again."""


class NotConnected(SessionError):
    """Nobody is connected to the client session, so nobody can be told at once."""


class TurnInterrupted(SessionError):
    """The turn was stopped on request; what was handed out is kept."""


class StaleWriter(SessionError):
    """The session went on without this writer; nothing was written."""


class IdempotencyConflict(SessionError):
    """The idempotency key was already used in this session for another request."""


class RetentionRefused(SessionError):
    """The session's retention (immutable, legal hold) forbids this."""


class HistoryErased(SessionError):
    """The position lies before what retention has erased."""


class Unauthorized(AgentError, PermissionError):
    """No token was given, or one that is not accepted; the text never has the token in it."""


class VersionConflict(AgentError):
    """Somebody else changed this state first; read it again and repeat."""

    def __init__(self, message: str, *, expected: int, actual: int | None) -> None:
        super().__init__(message)
        self.expected = expected
        self.actual = actual


class CursorExpired(AgentError):
    """The log behind a cursor was re-created or restored; start from its beginning."""


class StoreError(AgentError):
    """The store cannot do its work."""


class StoreClosed(StoreError):
    """The store is closed; open a new one."""


class StoreReadOnly(StoreError):
    """The store may be read but not written."""


class StoreUnavailable(StoreError):
    """The store is locked, full, or lies where its promise cannot be kept."""


class StoreCorrupt(StoreError):
    """What was read is not what was written."""


class NotAStore(StoreError):
    """The file is not a Tertulia store."""


class StoreTooNew(StoreError):
    """The store was written by a newer version of Tertulia."""


class OutcomeUnknown(StoreError):
    """An I/O error at commit: it may or may not be durable; read before you repeat."""


class WorkerLost(AgentError):
    """The worker that serves this cannot be reached, or was lost while it was asked.

    Read before you repeat, or repeat with the same idempotency key.
    """


class LiveError(AgentError):
    """A live connection cannot do this; `code` is the close code of the WebSocket, if one came."""

    def __init__(self, message: str, *, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class ConnectionLost(LiveError):
    """The server could not be reached, or not again; the session waits, or is in its log."""


class ConnectionDenied(LiveError):
    """The server does not let this client in: its token, its owner or its origin is not the one."""


class ConnectionTaken(LiveError):
    """A newer connection of the same session took over; only one at a time has it."""


class ConnectionEnded(LiveError):
    """The client is closed, or the conversation has ended; connect again to begin another one."""


class ModelError(AgentError):
    """The model provider failed.

    `status` is the HTTP status and `retry_after` the seconds that the provider asked to wait,
    both None where it did not say.
    """

    def __init__(
        self, message: str, *, status: int | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


class RoutingError(ModelError):
    """Every agent of a router failed; `errors` are what each of them raised."""

    def __init__(self, message: str, errors: list[ModelError]) -> None:
        super().__init__(message)
        self.errors = errors


class UnusableAnswer(ModelError):
    """The model's answer is empty, or not what may be said; the text says why."""


class ToolError(AgentError):
    """A tool call cannot be made."""


class PolicyError(AgentError):
    """A policy raised, or gave no verdict, so nothing was let through.

    `policy` is its name; what it raised is the ``__cause__``.
    """

    def __init__(self, message: str, *, policy: str) -> None:
        super().__init__(message)
        self.policy = policy


class SchemaValidationError(AgentError, ValueError):
    """A model's answer does not fit the schema that was asked for."""
