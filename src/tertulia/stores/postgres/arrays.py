"""Many rows as few parameters: an array for each column, unnested by the statement.

A statement names such a table as ``<change>``; `Statement` numbers its columns.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tertulia.stores.postgres.rows import Values

_HEAD = (
    "branch bigint, seq bigint, digest bytea, epoch bigint, holder bytea, open_turn bigint, "
    "open_calls text, visible bigint, marks bigint, requests bigint, input_tokens bigint, "
    "output_tokens bigint, active bigint"
)
_RARE = 'status text, due_at bigint, "user" text'
TABLES = {
    "change": (
        "n int, key bigint, old_seq bigint, old_digest bytea, old_epoch bigint, old_holder bytea, "
        + _HEAD
    ),
    "rare": f"n int, rare boolean, {_RARE}",
    "birth": (
        "n int, uid bytea, app text, id text, base bigint, parent bigint, created bigint, "
        f"{_HEAD}, {_RARE}"
    ),
    "event": (
        "n int, seq bigint, type text, time bigint, actor text, turn bigint, body bytea, "
        "salt bytea, digest bytea, body_digest bytea"
    ),
    "details": "n int, details text",
    "branch": (
        "n int, session bigint, low bigint, parent_session bigint, parent_low bigint, "
        "parent_high bigint"
    ),
    "cut": "n int, old bigint, new bigint",
    "mark": "n int, kind text, low bigint, high bigint, at bigint",
    "state": "n int, key text, seq bigint",
    "request": (
        "n int, key text, digest bytea, turn bigint, status text, result bytea, time bigint"
    ),
    "shared": 'n int, scope text, app text, "user" text, key text, value bytea',
}
"""The columns of each, as SQL names them; `n` is the number of the change within its batch."""

Rows = Mapping[str, Sequence[Values]]


class Statement:
    """A text whose tables come as arrays."""

    def __init__(self, text: str) -> None:
        self._names: list[str] = []
        self._places = 0
        self.text = re.sub(r"<(\w+)>( [a-z]\b)?", self._unnested, text)

    def _unnested(self, found: re.Match[str]) -> str:
        name, alias = found[1], found[2] or found[1]
        columns = [column.split(" ") for column in TABLES[name].split(", ")]
        first = self._places + 1
        self._names.append(name)
        self._places += len(columns)
        arrays = ", ".join(f"${first + place}::{kind}[]" for place, (_, kind) in enumerate(columns))
        named = ", ".join(column for column, _ in columns)
        return f"unnest({arrays}) AS {alias.strip()} ({named})"

    def values(self, rows: Rows) -> list[Any]:
        """The arrays, in the order of their numbers."""
        result: list[Any] = []
        for name in self._names:
            given = rows.get(name, ())
            width = TABLES[name].count(", ") + 1
            result += map(list, zip(*given, strict=True)) if given else [[]] * width
        return result
