"""Stages for the tests of clients: every test that takes `stage` runs on each store."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from tests.swarm.stage import Stage

from tertulia.testing import FrozenClock


@pytest.fixture
def frozen() -> FrozenClock:
    """The clock of `stage`, which the test turns."""
    return FrozenClock()


@pytest.fixture(params=["memory", "sqlite"])
async def stage(
    request: pytest.FixtureRequest, tmp_path: Path, frozen: FrozenClock
) -> AsyncGenerator[Stage]:
    """A store, and runtimes on it."""
    made = Stage(request.param, tmp_path, frozen)
    yield made
    await made.close()


@pytest.fixture
async def durable(tmp_path: Path, frozen: FrozenClock) -> AsyncGenerator[Stage]:
    """A stage whose store is a file, for restarts."""
    made = Stage("sqlite", tmp_path, frozen)
    yield made
    await made.close()
