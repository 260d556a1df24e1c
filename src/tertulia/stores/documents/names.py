"""The ids of documents: one for each session, and hidden ones for what belongs to none.

A session of the default app has its own id. All other documents begin with a prefix that no
listing shows as a session.
"""

from __future__ import annotations

from urllib.parse import quote, unquote

PREFIX = "tertulia:"
SESSIONS = f"{PREFIX}of:"
RECEIPTS = f"{PREFIX}receipts"
MEMORY = f"{PREFIX}memory:"


def of_session(app: str | None, session_id: str) -> str:
    """The document of a session."""
    if app is None and not session_id.startswith(PREFIX):
        return session_id
    return f"{SESSIONS}{_part(app)}:{_part(session_id)}"


def of_shared(scope: str, app: str | None, user: str | None) -> str:
    """The document of a user's or an app's state."""
    return f"{PREFIX}state:{scope}:{_part(app)}:{_part(user)}"


def of_entity(kind: str, key: str) -> str:
    """The document of an entity."""
    return f"{PREFIX}entity:{_part(kind)}:{_part(key)}"


def of_memory(app: str | None, user: str | None) -> str:
    """The document of a user's or an app's memories."""
    return f"{MEMORY}{_part(app)}:{_part(user)}"


def scope_of_memory(name: str) -> tuple[str | None, str | None] | None:
    """Whose memories a document holds, as (app, user); None for other documents."""
    if not name.startswith(MEMORY):
        return None
    app, _, user = name.removeprefix(MEMORY).partition(":")
    return unquote(app) or None, unquote(user) or None


def is_session(name: str) -> bool:
    """Whether a document holds a session."""
    return not name.startswith(PREFIX) or name.startswith(SESSIONS)


def is_state_of(name: str, user: str) -> bool:
    """Whether a document holds the state of a user, in whatever app."""
    return name.startswith(f"{PREFIX}state:user:") and name.endswith(f":{_part(user)}")


def _part(name: str | None) -> str:
    """A name without the separator; None and the empty name, which is no name, are the same."""
    return quote(name or "", safe=" ")
