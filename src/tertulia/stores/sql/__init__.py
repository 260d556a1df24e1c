"""The SQL of the stores that speak SQLite: numbered migrations and named queries, as files."""

from __future__ import annotations

import re
from pathlib import Path

FOLDER = Path(__file__).parent


_MIGRATIONS = tuple(path.read_text() for path in sorted(FOLDER.glob("[0-9]*.sql")))


def migrations() -> list[str]:
    """The scripts that make a schema out of nothing, in order; their count is its version."""
    return list(_MIGRATIONS)


def queries(name: str) -> dict[str, str]:
    """The named queries of a file; one may be named in braces by those after it."""
    _, *parts = re.split(r"^-- name: (\w+)\n", (FOLDER / name).read_text(), flags=re.MULTILINE)
    found: dict[str, str] = {}
    for key, text in zip(parts[::2], parts[1::2], strict=True):
        found[key] = re.sub(r"\{(\w+)\}", lambda match: found[match[1]], text.strip())
    return found
