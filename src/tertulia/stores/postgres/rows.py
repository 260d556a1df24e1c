"""Between the words and their rows in PostgreSQL: pure functions."""

from __future__ import annotations

from typing import Any

from tertulia.stores import rows
from tertulia.stores.base import Change, SessionRow, SharedWrite

Values = tuple[Any, ...]

_NOTHING_SPENT = (None, None, None)


def name(given: str | None) -> str:
    """A name as a column that may not be NULL: empty where there is none."""
    return given or ""


def change_values(number: int, before: SessionRow, after: SessionRow) -> Values:
    """A change as a row of `change`; None for what stays as it is and is never NULL."""
    branch, seq, digest, epoch, holder, turn, calls, visible, marks, *spent, active = (
        rows.head_values(after)
    )
    return (
        number,
        *rows.fence(before),
        None if branch == before.branch else branch,
        seq,
        digest,
        None if epoch == before.epoch else epoch,
        holder,
        turn,
        calls,
        visible,
        None if marks == before.marks else marks,
        *(_NOTHING_SPENT if after.usage is before.usage else spent),
        active,
    )


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
