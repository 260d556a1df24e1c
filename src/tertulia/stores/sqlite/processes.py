"""Files that cannot be used in this process, because it was forked while they were open.

SQLite keeps its locks per process and finds them by the file's inode. A forked child has the
bookkeeping of locks that it does not hold, so a file that was open at the fork cannot be used in
the child at all, not even through a new connection.
"""

from __future__ import annotations

import os

from tertulia.errors import ForkedRuntimeError

_inherited: set[tuple[int, int]] = set()


def note_inherited(path: str) -> None:
    """Remember in a forked child that a file was open."""
    identity = _identity(path)
    if identity:
        _inherited.add(identity)


def check_not_inherited(path: str) -> None:
    """Raises ForkedRuntimeError for a file that was open when this process was forked."""
    if _inherited and _identity(path) in _inherited:
        raise ForkedRuntimeError(
            f"{path} was open when os.fork made this process; start child processes by spawn"
        )


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - the path of a store is text
    except OSError:
        return None
    return found.st_dev, found.st_ino
