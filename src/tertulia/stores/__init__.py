"""Stores: the promise, and those who keep it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tertulia.stores.base import LogStore, SessionStore
from tertulia.stores.memory import MemoryStore
from tertulia.stores.open import open_store
from tertulia.stores.sqlite import SQLiteStore

if TYPE_CHECKING:
    from tertulia.stores.documents import DocumentStore

__all__ = [
    "DocumentStore",
    "LogStore",
    "MemoryStore",
    "SQLiteStore",
    "SessionStore",
    "open_store",
]


def __getattr__(name: str) -> Any:
    """Documents are imported when they are asked for: most sessions do without them."""
    if name != "DocumentStore":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tertulia.stores.documents import DocumentStore

    return DocumentStore
