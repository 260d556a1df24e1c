"""Sessions in one SQLite file."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tertulia.stores.sqlite.store import SQLiteStore

if TYPE_CHECKING:
    from tertulia.stores.sqlite import maintenance

__all__ = ["SQLiteStore", "maintenance"]


def __getattr__(name: str) -> Any:
    """Maintenance is imported when it is asked for."""
    if name != "maintenance":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module("tertulia.stores.sqlite.maintenance")
