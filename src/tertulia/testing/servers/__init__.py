"""Real servers for tests and development, on a machine that has none."""

from __future__ import annotations

from tertulia.testing.servers.databases import drop_database, empty_database, new_database
from tertulia.testing.servers.nats import NatsServer
from tertulia.testing.servers.postgres import PostgresServer
from tertulia.testing.servers.shared import server_url

__all__ = [
    "NatsServer",
    "PostgresServer",
    "drop_database",
    "empty_database",
    "new_database",
    "server_url",
]
