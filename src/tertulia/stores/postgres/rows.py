"""Between the words and their rows in PostgreSQL: pure functions."""

from __future__ import annotations

from typing import Any

from tertulia.stores import rows
from tertulia.stores.base import Change, SessionRow, SharedWrite

Values = tuple[Any, ...]


def name(given: str | None) -> str:
    """A name as a column that may not be NULL: empty where there is none."""
    return given or ""


def change_values(number: int, change: Change) -> Values:
    """A change as a row of `change`."""
    return (number, *rows.fence(change.before), *rows.head_values(change.after))


def rare_values(number: int, change: Change) -> Values | None:
    """What only some changes change, where this one does."""
    after = rows.rare_values(change.after)
    if after == rows.rare_values(change.before):
        return None
    return (number, True, *after)


def birth_values(number: int, row: SessionRow) -> Values:
    birth = (row.uid, name(row.app), row.id, row.base, row.parent, row.created)
    return (number, *birth, *rows.head_values(row), *rows.rare_values(row))


def shared_values(write: SharedWrite) -> Values:
    return (write.scope, name(write.app), name(write.user), write.key, write.value)


def shared_place(write: SharedWrite) -> Values:
    """Which value it is, in the order in which values are locked."""
    return shared_values(write)[:4]
