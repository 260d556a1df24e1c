"""The context of a live session: a dictionary that its nodes, hooks and setup share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from typing import Any, cast

import msgspec

from tertulia.errors import InvalidInput
from tertulia.scopes import check_value

MOST = 250_000
"""Bytes of JSON; what goes beyond is not kept over a restart."""


class Context(MutableMapping[str, Any]):
    """Values of any type, for as long as the session lives.

    What is JSON is also kept in the state of the conversation, and comes back after a restart of
    the server; anything else does not.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self._values: dict[str, Any] = {}
        self._changed = changed
        self._kept: bytes | None = None

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._values[key] = value
        self._changed()

    def __delitem__(self, key: str) -> None:
        del self._values[key]
        self._changed()

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Context({self._values!r})"

    def restore(self, kept: Any) -> None:
        """Take back what was kept."""
        if isinstance(kept, dict):
            self._values.update(cast("dict[str, Any]", kept))
            self._kept = self._json()[1]

    def news(self) -> dict[str, Any] | None:
        """What is to be kept, if it is not kept already."""
        values, encoded = self._json()
        if encoded == (self._kept or b"{}"):
            return None
        self._kept = encoded
        return values

    def _json(self) -> tuple[dict[str, Any], bytes]:
        known = list(self._values.items())
        values = {key: value for key, value in known if _is_json(key, value)}
        encoded = msgspec.json.encode(values, order="sorted")
        while len(encoded) > MOST:
            values.popitem()
            encoded = msgspec.json.encode(values, order="sorted")
        return values, encoded


def _is_json(key: Any, value: Any) -> bool:
    """Whether a value can be kept as it is."""
    try:
        if not _plain(value):
            return False
        check_value({key: value}, "the context")
    except (InvalidInput, RecursionError):
        return False
    return True


def _plain(value: Any) -> bool:
    """Whether it comes back as what it is: no tuple, no object, no class of its own."""
    if isinstance(value, list):
        return all(_plain(item) for item in cast("list[Any]", value))
    if isinstance(value, dict):
        return all(_plain(item) for item in cast("dict[Any, Any]", value).values())
    return value is None or type(value) in (str, bool, int, float)
