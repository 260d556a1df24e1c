"""What goes wrong with a request: the status of every error, and the one shape that it is told in.

``{"error": {"type": "SessionNotFound", "message": "…"}}``. Another owner's session is told of as
one that does not exist. What fails on the server's side is told by its kind only; its own text is
for those who run the server.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import msgspec
from starlette.responses import Response

from tertulia import errors
from tertulia.errors import AccessDenied, AgentError, SessionNotFound, UsageError

_log = logging.getLogger(__name__)

STATUS: dict[type[BaseException], int] = {
    errors.UsageError: 400,
    errors.InvalidInput: 422,
    errors.ConfigurationError: 500,
    errors.UnknownName: 404,
    errors.ForkedRuntimeError: 500,
    errors.SessionError: 409,
    errors.SessionNotFound: 404,
    errors.AccessDenied: 404,
    errors.TurnTimeout: 504,
    errors.SessionMoved: 410,
    errors.HistoryErased: 410,
    errors.Unauthorized: 401,
    errors.VersionConflict: 409,
    errors.CursorExpired: 410,
    errors.StoreError: 503,
    errors.StoreCorrupt: 500,
    errors.NotAStore: 500,
    errors.StoreTooNew: 500,
    errors.OutcomeUnknown: 500,
    errors.WorkerLost: 503,
    errors.ModelError: 502,
    errors.SchemaValidationError: 502,
}
"""The status of an error is that of the nearest class above it; all else is a 500."""


class Refused(UsageError):
    """A request that is refused before it is understood; `kind` names why, `status` is HTTP's."""

    def __init__(
        self, status: int, kind: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.headers = headers


class ErrorShown(msgspec.Struct, frozen=True):
    """What went wrong: the name of the error, and what to do about it."""

    type: str
    message: str


class Problem(msgspec.Struct, frozen=True):
    """The answer to every request that fails."""

    error: ErrorShown


def status_of(error: BaseException) -> int:
    """The HTTP status of an error."""
    if isinstance(error, Refused):
        return error.status
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)


def shown(error: BaseException) -> ErrorShown:
    """What a client is told of an error."""
    if isinstance(error, Refused):
        return ErrorShown(error.kind, str(error))
    if isinstance(error, AccessDenied):
        error = SessionNotFound(f"there is no session {error.session_id!r}")
    if not isinstance(error, AgentError):
        return ErrorShown("InternalError", "the server failed; its log says more")
    kind = type(error)
    if status_of(error) < 500:
        return ErrorShown(kind.__name__, str(error))
    words = (kind.__doc__ or "the server failed").strip().partition("\n")[0]
    return ErrorShown(kind.__name__, words)


def note(error: BaseException, method: str, route: str) -> None:
    """Log what failed on our side: the method and the route, and nothing of the request."""
    if status_of(error) < 500:
        return
    if isinstance(error, AgentError):
        _log.warning("%s %s: %s", method, route, type(error).__name__)
    else:
        _log.error("%s %s failed", method, route, exc_info=error)


def answer(error: BaseException, method: str, route: str) -> Response:
    """The answer to a request that failed; what failed on our side is logged."""
    note(error, method, route)
    status = status_of(error)
    headers = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    if isinstance(error, Refused):
        headers.update(error.headers or {})
    content = msgspec.json.encode(Problem(shown(error)))
    return Response(content, status, headers, media_type="application/json")
