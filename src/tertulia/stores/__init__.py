"""Stores: the promise, and those who keep it."""

from tertulia.stores.base import LogStore, SessionStore
from tertulia.stores.memory import MemoryStore
from tertulia.stores.open import open_store
from tertulia.stores.sqlite import SQLiteStore

__all__ = ["LogStore", "MemoryStore", "SQLiteStore", "SessionStore", "open_store"]
