"""What the errors of PostgreSQL and of its driver mean: the one place where they become ours."""

from __future__ import annotations

from enum import Enum

from tertulia.errors import (
    AgentError,
    ConfigurationError,
    InvalidInput,
    NotAStore,
    OutcomeUnknown,
    StoreCorrupt,
    StoreError,
    StoreReadOnly,
    StoreUnavailable,
)


class NotConnected(OSError):
    """There is no connection, so nothing was sent."""


class Fate(Enum):
    """What an error says about what was tried."""

    LOST = "the connection was lost: it may have happened"
    UNDONE = "it was undone for the sake of others, and can be tried again"
    REFUSED = "it did not happen, and trying again does not help"


LOCKED = "55P03"
"""A lock was not free in time."""
LOST = ("08", "57P", "53300", "25006")
"""Beginnings of codes: of the connection, of a server that ends or begins, of one that has too
many connections, and of one that was the primary."""
UNDONE = ("40001", "40P01", LOCKED)
OUTDATED = "InvalidCachedStatementError"
"""Somebody migrated meanwhile; the driver prepares its statements again."""
POOLER = "if this is a pooler in transaction mode, add ?direct= with the address past it"
MEANINGS: list[tuple[str, type[AgentError], str]] = [
    ("28", StoreUnavailable, "check the user and the password in the address of the store"),
    ("3D", StoreUnavailable, "make the database, or name another one in the address"),
    ("42501", StoreReadOnly, "its user may not do this; `tertulia migrate` needs the owner"),
    ("25006", StoreReadOnly, "it may only be read: name the primary in the address of the store"),
    ("42P01", NotAStore, "run `tertulia migrate`"),
    ("3F000", NotAStore, "run `tertulia migrate`"),
    ("26000", ConfigurationError, POOLER),
    ("42P05", ConfigurationError, POOLER),
    ("22021", InvalidInput, "PostgreSQL keeps no text with a NUL character"),
    ("22P05", InvalidInput, "PostgreSQL keeps no text with this character"),
    (LOCKED, StoreUnavailable, "nothing was written; somebody keeps a lock for long"),
    ("53", StoreUnavailable, "nothing was written; make room on the server and repeat"),
    ("XX", StoreCorrupt, "the database is damaged; restore a backup"),
]


def fate(error: BaseException) -> Fate:
    """What became of what was tried when this was raised."""
    code = code_of(error)
    if code.startswith(UNDONE) or type(error).__name__ == OUTDATED:
        return Fate.UNDONE
    if code.startswith(LOST) or isinstance(error, OSError | EOFError | TimeoutError):
        return Fate.LOST
    if not code and _is_interface_error(error):
        return Fate.LOST
    return Fate.REFUSED


def translate(error: Exception, url: str) -> AgentError:
    """An error as ours, with what to do about it."""
    if isinstance(error, AgentError):
        return error
    code = code_of(error)
    for beginning, kind, advice in MEANINGS:
        if code.startswith(beginning):
            return kind(f"{url}: {error}; {advice}")
    if isinstance(error, UnicodeError) or type(error).__name__ == "DataError":
        return InvalidInput(f"{url}: {error}; PostgreSQL keeps no such value")
    if fate(error) is Fate.LOST:
        return StoreUnavailable(f"{url}: {said(error)}; is the server running?")
    return StoreError(f"{url}: {type(error).__name__}: {error}")


def unknown(error: Exception, url: str) -> OutcomeUnknown:
    """That nobody knows what became of what was tried."""
    return OutcomeUnknown(
        f"{url}: {said(error)}; it may or may not have been written: read before you repeat"
    )


def said(error: BaseException) -> str:
    """The text of an error, or its kind where it has none."""
    return str(error) or type(error).__name__


def code_of(error: BaseException) -> str:
    """The SQLSTATE, empty where the server did not say one."""
    return str(getattr(error, "sqlstate", None) or "")


def _is_interface_error(error: BaseException) -> bool:
    """Whether the driver found its connection unusable; a value that it cannot send is no such."""
    names = {each.__name__ for each in type(error).__mro__}
    return bool(names & {"InterfaceError", "InternalClientError"}) and not isinstance(
        error, ValueError
    )
