"""Stores for the traps: every test that takes `runtime` runs on each of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tertulia import MemoryStore, Runtime, SQLiteStore
from tertulia.testing import FrozenClock


@pytest.fixture
def clock() -> FrozenClock:
    """The clock of `runtime`, which the test turns."""
    return FrozenClock()


@pytest.fixture(params=["memory", "sqlite"])
async def runtime(
    request: pytest.FixtureRequest, tmp_path: Path, clock: FrozenClock
) -> AsyncIterator[Runtime]:
    """A runtime on a real store."""
    store = MemoryStore() if request.param == "memory" else SQLiteStore(tmp_path / "test.db")
    made = Runtime(store, clock=clock)
    yield made
    await made.close()
