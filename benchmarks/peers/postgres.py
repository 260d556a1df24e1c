"""The peers that keep conversations on PostgreSQL, as their documentation shows for a server.

ADK brings SQLAlchemy over asyncpg, LangGraph psycopg; each has a pool of 20 connections.
"""

# pyright: basic, reportMissingImports=false
from __future__ import annotations

from pathlib import Path
from typing import Any

from google.adk.sessions.database_session_service import DatabaseSessionService
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from benchmarks.peers import adk, langgraph_saver
from benchmarks.postgres_systems import database
from benchmarks.systems import distribution_versions

POOL = 20


class Adk(adk.Adk):
    """One service on one database."""

    async def open(self, folder: Path) -> None:
        url = database(folder).replace("postgresql://", "postgresql+asyncpg://", 1)
        self.service = DatabaseSessionService(url, pool_size=POOL, max_overflow=0)
        self.sessions: dict[str, Any] = {}

    def versions(self) -> dict[str, str]:
        return distribution_versions("google-adk", "sqlalchemy", "asyncpg")


class LangGraph(langgraph_saver.LangGraph):
    """One compiled graph and one saver on one database."""

    async def open(self, folder: Path) -> None:
        options = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
        self.pool = AsyncConnectionPool(
            database(folder), min_size=POOL, max_size=POOL, kwargs=options, open=False
        )
        await self.pool.open()
        saver = AsyncPostgresSaver(self.pool)
        await saver.setup()
        self.compile(saver)

    async def close(self) -> None:
        await self.pool.close()

    def versions(self) -> dict[str, str]:
        return distribution_versions("langgraph", "langgraph-checkpoint-postgres", "psycopg")
