"""The SQL of the PostgreSQL store as files: numbered migrations and named queries."""

from __future__ import annotations

from pathlib import Path

from tertulia.stores import sql

FOLDER = Path(__file__).parent


def migrations() -> list[str]:
    """The scripts that make a schema out of nothing, in order; their count is its version."""
    return sql.read_migrations(FOLDER)


def queries(name: str) -> dict[str, str]:
    """The named queries of a file."""
    return sql.queries(name, FOLDER)
