"""What we use of a connection to SQLite, with types."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, cast

import apsw

Values = tuple[Any, ...]


class Cursor(Protocol):
    """The rows of a statement."""

    def fetchall(self) -> list[Values]: ...

    def __iter__(self) -> Iterator[Values]: ...


class Database(Protocol):
    """One connection; its driver's own types are partly unknown to a type checker."""

    @property
    def in_transaction(self) -> bool: ...

    def execute(self, statements: str, bindings: Values | dict[str, Any] = ..., /) -> Cursor: ...

    def executemany(self, statements: str, bindings: Iterable[Values], /) -> Cursor: ...

    def changes(self) -> int: ...

    def total_changes(self) -> int: ...

    def last_insert_rowid(self) -> int: ...

    def pragma(self, name: str, /) -> Any: ...

    def create_scalar_function(
        self, name: str, function: Callable[..., Any], arguments: int, /, *, deterministic: bool
    ) -> None: ...

    def set_busy_timeout(self, milliseconds: int, /) -> None: ...

    def set_wal_hook(self, hook: Callable[[Any, str, int], int], /) -> None: ...

    def wal_autocheckpoint(self, pages: int, /) -> None: ...

    def wal_checkpoint(self, database: str | None = ..., mode: int = ..., /) -> tuple[int, int]: ...

    def close(self, force: bool = ..., /) -> None: ...


def connect(name: str, flags: int | None = None, vfs: str | None = None) -> Database:
    """A new connection; by default one that may write and makes the file.

    Plans do not depend on what is bound: else a statement whose range is bound is prepared anew at
    each use, which costs more than the reading of a short range.
    """
    if flags is None:
        flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
    connection = apsw.Connection(name, flags, vfs)
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
    return cast("Database", connection)
