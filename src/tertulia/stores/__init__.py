"""Stores: the promise, and those who keep it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tertulia.stores.base import LogStore, SessionStore
from tertulia.stores.memory import MemoryStore
from tertulia.stores.open import open_store
from tertulia.stores.sqlite import SQLiteStore

if TYPE_CHECKING:
    from tertulia.stores.documents import DocumentStore
    from tertulia.stores.postgres import PostgresStore

__all__ = [
    "DocumentStore",
    "LogStore",
    "MemoryStore",
    "PostgresStore",
    "SQLiteStore",
    "SessionStore",
    "open_store",
]


_HOMES = {"DocumentStore": "documents", "PostgresStore": "postgres"}


def __getattr__(name: str) -> Any:
    """These are imported when they are asked for: most sessions do without them."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
