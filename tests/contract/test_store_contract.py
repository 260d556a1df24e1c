"""Every store keeps every promise: one suite for all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tertulia.stores import LogStore, MemoryStore, SQLiteStore
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
