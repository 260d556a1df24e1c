"""A store by its URL."""

from __future__ import annotations

from tertulia.errors import ConfigurationError
from tertulia.stores.base import LogStore
from tertulia.stores.memory import MemoryStore
from tertulia.stores.sqlite import SQLiteStore

KNOWN = "sqlite:///relative.db, sqlite:////absolute.db, postgresql://user@host/database, memory:"


def open_store(url: str) -> LogStore:
    """The store that a URL names; opened on first use.

    Raises ConfigurationError, and MissingExtra where the driver of a database is not installed.
    """
    scheme, colon, rest = url.partition(":")
    if colon and scheme == "memory":
        return MemoryStore()
    if colon and scheme == "sqlite":
        return _sqlite(url, rest)
    if scheme in {"postgres", "postgresql"}:
        from tertulia.stores.postgres import PostgresStore  # slow to import, and not for all

        return PostgresStore(url)
    meant = f"did you mean sqlite:///{url}?" if url and not colon else f"there are: {KNOWN}"
    raise ConfigurationError(f"{url!r} names no store; {meant}")


def _sqlite(url: str, rest: str) -> SQLiteStore:
    from urllib.parse import parse_qs, unquote  # slow to import, and not for memory

    path, _, query = rest.partition("?")
    options = parse_qs(query, keep_blank_values=True)
    unsafe = options.pop("unsafe_fs", ["0"])
    if options:
        raise ConfigurationError(f"{url!r}: {', '.join(options)} is no option; unsafe_fs=1 is")
    if not path.startswith("///") or len(path) == len("///"):
        raise ConfigurationError(f"{url!r} names no file; write it like {KNOWN}")
    return SQLiteStore(unquote(path.removeprefix("///")), unsafe_fs=unsafe[-1] == "1")
