"""Sessions in a PostgreSQL database, for many machines."""

from __future__ import annotations

from tertulia.stores.postgres.store import PostgresStore

__all__ = ["PostgresStore"]
