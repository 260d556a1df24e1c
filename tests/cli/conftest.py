"""Fixtures of the tests of the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.program import Program, fill


@pytest.fixture
def empty(tmp_path: Path) -> Program:
    """The program, with a store that does not exist yet."""
    return Program(tmp_path)


@pytest.fixture
def program(empty: Program) -> Program:
    """The program, with a store of three sessions: s0, s1 of ana, s2 of ana in the app shop."""
    fill(empty.url)
    return empty
