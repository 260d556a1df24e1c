"""Entries of a memory, and what may become one: pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import msgspec

from tertulia.clock import to_datetime
from tertulia.errors import InvalidInput, StoreCorrupt
from tertulia.stores.memories import MemoryRow
from tertulia.values import identifier, json_object, text

MAX_CONTENT = 64 << 10
"""Bytes of UTF-8 in the content of one memory."""
MAX_METADATA = 16 << 10
"""Bytes of JSON."""
MAX_QUERY = 10_000
"""Characters."""
MAX_LIMIT = 1_000
MAX_KEYS = 1_000


class MemoryEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One memory, as a copy of what is kept."""

    key: str
    content: str
    metadata: dict[str, Any]
    created: datetime
    """When its key was first stored, in UTC."""
    updated: datetime
    """When it was stored as it is now, in UTC."""
    score: float | None = None
    """How well it fits a search, above 0 and at most 1; None where nothing was searched for."""


def entry_of(row: MemoryRow, score: float | None = None) -> MemoryEntry:
    """What is handed out of a row. Raises StoreCorrupt."""
    try:
        metadata = msgspec.json.decode(row.metadata, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise StoreCorrupt(
            f"the metadata of memory {row.key!r} cannot be read: {error}; store it again"
        ) from error
    return MemoryEntry(
        key=row.key,
        content=row.content,
        metadata=metadata,
        created=to_datetime(row.created),
        updated=to_datetime(row.updated),
        score=score,
    )


def new_row(key: str, content: str, metadata: Any, time: int) -> MemoryRow:
    """The row of a new memory. Raises InvalidInput."""
    encoded = msgspec.json.encode(json_object(metadata, "the metadata"))
    if len(encoded) > MAX_METADATA:
        raise InvalidInput(
            f"the metadata has {len(encoded)} bytes of JSON; at most {MAX_METADATA} are allowed"
        )
    return MemoryRow(
        key=identifier(key, "the key"),
        content=check_content(content),
        metadata=encoded.decode(),
        created=time,
        updated=time,
    )


def check_content(content: Any) -> str:
    """Raises InvalidInput."""
    checked = text(content, "the content")
    if not checked.strip():
        raise InvalidInput("the content must not be empty; use forget to remove a memory")
    size = len(checked.encode())
    if size > MAX_CONTENT:
        raise InvalidInput(
            f"the content has {size} bytes; a memory has at most {MAX_CONTENT}: store its parts "
            "under keys of their own"
        )
    return checked


def check_keys(keys: str | Iterable[str]) -> list[str]:
    """The keys in their order, each once. Raises InvalidInput."""
    given = [keys] if isinstance(keys, str) else list(keys)
    if len(given) > MAX_KEYS:
        raise InvalidInput(f"{len(given)} keys at once; at most {MAX_KEYS} are allowed")
    return list(dict.fromkeys(identifier(key, "the key") for key in given))


def check_query(query: Any) -> str:
    """Raises InvalidInput."""
    checked = text(query, "the query")
    if not checked.strip():
        raise InvalidInput("the query must not be empty; say what to look for")
    if len(checked) > MAX_QUERY:
        raise InvalidInput(f"the query has {len(checked)} characters; at most {MAX_QUERY} count")
    return checked


def check_limit(limit: Any) -> int:
    """Raises InvalidInput."""
    if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= MAX_LIMIT:
        raise InvalidInput(f"limit must be a whole number from 1 to {MAX_LIMIT}, not {limit!r}")
    return limit
