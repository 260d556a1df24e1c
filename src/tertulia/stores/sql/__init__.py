"""The SQL of stores as files: numbered migrations and named queries; here those of SQLite."""

from __future__ import annotations

import re
from pathlib import Path

FOLDER = Path(__file__).parent


def read_migrations(folder: Path) -> list[str]:
    """The scripts of a folder, in order."""
    return [path.read_text() for path in sorted(folder.glob("[0-9]*.sql"))]


_MIGRATIONS = tuple(read_migrations(FOLDER))


def migrations() -> list[str]:
    """The scripts that make a schema out of nothing, in order; their count is its version."""
    return list(_MIGRATIONS)


def queries(name: str, folder: Path = FOLDER) -> dict[str, str]:
    """The named queries of a file; one may be named in braces by those after it."""
    _, *parts = re.split(r"^-- name: (\w+)\n", (folder / name).read_text(), flags=re.MULTILINE)
    found: dict[str, str] = {}
    for key, text in zip(parts[::2], parts[1::2], strict=True):
        found[key] = re.sub(r"\{(\w+)\}", lambda match: found[match[1]], text.strip())
    return found
