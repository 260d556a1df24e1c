"""Sessions in a PostgreSQL database, for many machines."""

from __future__ import annotations
