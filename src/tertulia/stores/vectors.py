"""How far two vectors point apart, as a function of SQL: sqlite-vec's where it is installed."""

from __future__ import annotations

import contextlib
from array import array
from collections.abc import Iterable
from importlib.util import find_spec
from math import sqrt
from operator import mul
from pathlib import Path
from typing import Any, cast

import apsw

from tertulia.stores.database import Database

_FUNCTION = "vec_distance_cosine"
_IS_THERE = f"SELECT 1 FROM pragma_function_list WHERE name = '{_FUNCTION}' LIMIT 1"  # noqa: S608


def packed(numbers: Iterable[float]) -> bytes:
    """A vector as it is kept."""
    return array("f", numbers).tobytes()


def prepare(db: Database) -> None:
    """Give a connection the function, once; its own in Python is fifty times slower."""
    if db.execute(_IS_THERE).fetchall():
        return
    path = extension()
    if path is None or not _load(db, path):
        db.create_scalar_function(_FUNCTION, cosine_distance, 2, deterministic=True)


def extension() -> str | None:
    """Where sqlite-vec lies. It is not imported: that would load another SQLite library."""
    spec = find_spec("sqlite_vec")
    if spec is None or not spec.submodule_search_locations:
        return None
    return str(Path(spec.submodule_search_locations[0]) / "vec0")


def _load(db: Database, path: str) -> bool:
    connection = cast("Any", db)
    connection.enable_load_extension(True)
    try:
        with contextlib.suppress(apsw.Error):
            connection.load_extension(path)
            return True
        return False
    finally:
        connection.enable_load_extension(False)


def cosine_distance(one: bytes, other: bytes) -> float | None:
    """1 minus the cosine of the angle between two vectors: 0 for the same direction, up to 2.

    None where one of them has no direction.
    """
    left, right = array("f", one), array("f", other)
    lengths = sqrt(sum(map(mul, left, left)) * sum(map(mul, right, right)))
    return 1 - sum(map(mul, left, right)) / lengths if lengths else None
