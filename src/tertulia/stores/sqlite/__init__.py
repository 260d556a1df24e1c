"""The store of one SQLite file."""

from tertulia.stores.sqlite.store import SQLiteStore

__all__ = ["SQLiteStore"]
