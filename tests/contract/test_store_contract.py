"""Every store keeps every promise: one suite for all of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tertulia.stores import LogStore, MemoryStore, SQLiteStore
from tertulia.stores.postgres import PostgresStore
from tertulia.testing.store_contract import StoreContract


class TestMemoryStore(StoreContract):
    def make(self) -> LogStore:
        return MemoryStore()


class TestSQLiteStore(StoreContract):
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path) -> None:
        self.path = tmp_path / "sessions.db"

    def make(self) -> LogStore:
        return SQLiteStore(self.path)


class TestPostgresStore(StoreContract):
    @pytest.fixture(autouse=True)
    def databases(self, new_postgres: Callable[[], str]) -> None:
        self.new = new_postgres

    def make(self) -> LogStore:
        return PostgresStore(self.new())
