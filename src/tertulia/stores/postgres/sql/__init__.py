"""The SQL of the PostgreSQL store as files: numbered migrations and named queries."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from tertulia.stores import sql

FOLDER = Path(__file__).parent


class Migration(NamedTuple):
    """One step from a schema to a newer one.

    Old and new code both run on what a step before deploying (pre) leaves. A step after deploying
    (post) takes away what only old code needs, and waits until none of that runs.
    """

    number: int
    name: str
    post: bool
    script: str


def migrations(folder: Path = FOLDER) -> list[Migration]:
    """The steps that make a schema out of nothing, in order: ``NNN_name.pre.sql`` or ``.post.``."""
    return [_migration(path) for path in sorted(folder.glob("[0-9]*.sql"))]


def _migration(path: Path) -> Migration:
    name, kind, _ = path.name.split(".")
    return Migration(int(name[:3]), name, {"pre": False, "post": True}[kind], path.read_text())


def queries(name: str) -> dict[str, str]:
    """The named queries of a file."""
    return sql.queries(name, FOLDER)
