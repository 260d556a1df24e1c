"""Many rows as few parameters: an array for each column, unnested by the statement.

A statement names such a table as ``<change>``; `Statement` numbers its columns. Arrays are
unnested in a select list, side by side: as a table in FROM each of them would first be copied
into a store of its own. Those of numbers travel as text, because the driver takes its time to
find out of each element of a list that it is no list.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import count, repeat
from typing import Any

import msgspec

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


NUMBERS = frozenset({"int", "bigint"})
OFTEN_ONE = frozenset({"change", "event"})
"""Tables of which the only row comes as it is: PostgreSQL then reads it like constants."""

_NUMBERS = {
    name: [column.rpartition(" ")[2] in NUMBERS for column in columns.split(", ")]
    for name, columns in TABLES.items()
}
_json = msgspec.json.Encoder().encode


class Statement:
    """A text whose tables come as arrays."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._names: list[str] = re.findall(r"<(\w+)>", text)
        self._made: dict[frozenset[str], str] = {}

    def call(self, rows: Rows) -> list[Any]:
        """The text for these rows, and its parameters in the order of their numbers."""
        single = frozenset(name for name in OFTEN_ONE if len(rows.get(name, ())) == 1)
        text = self._made.get(single)
        if text is None:
            text = self._made[single] = self._make(single)
        result: list[Any] = [text]
        for name in self._names:
            given = rows.get(name, ())
            if name in single:
                result += given[0]
            else:
                columns = zip(*given, strict=True) if given else repeat(())
                result += map(_array, _NUMBERS[name], columns)
        return result

    def _make(self, single: frozenset[str]) -> str:
        places = count(1)

        def table(found: re.Match[str]) -> str:
            name, alias = found[1], found[2] or found[1]
            columns = [column.split(" ") for column in TABLES[name].split(", ")]
            form = _plain if name in single else _unnested
            listed = [f"{form(next(places), kind)} AS {column}" for column, kind in columns]
            return f"(SELECT {', '.join(listed)}) AS {alias.strip()}"

        return re.sub(r"<(\w+)>( [a-z]\b)?", table, self._text)


def _plain(place: int, kind: str) -> str:
    return f"${place}::{kind}"


def _unnested(place: int, kind: str) -> str:
    return f"unnest(${place}{'::text' if kind in NUMBERS else ''}::{kind}[])"


def _array(numbers: bool, column: Sequence[Any]) -> Any:
    """A column as an array; an empty one gives NULL beside others that are longer."""
    if not column or (column[0] is None and column.count(None) == len(column)):
        column = ()
    return f"{{{_json(column)[1:-1].decode()}}}" if numbers else column
