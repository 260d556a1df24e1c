"""Opening a file at the same moment as others."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from tests.crash.children import children

from tertulia import Runtime

pytestmark = pytest.mark.slow_crash


@pytest.mark.parametrize("times", [10, pytest.param(50, marks=pytest.mark.soak)])
async def test_processes_that_open_a_new_file_at_once_can_all_use_it(
    tmp_path: Path, times: int
) -> None:
    for number in range(times):
        file = tmp_path / f"{number}.db"
        with children("opens", file, count=4 if number % 5 == 4 else 2) as openers:
            for child in openers:
                assert child.hear() == "ready"
            moment = time.monotonic() + 0.005
            for child in openers:
                child.tell(str(moment))
            assert [child.hear() for child in openers] == ["ok"] * len(openers)
            for child in openers:
                assert child.end() == []
        async with Runtime(f"sqlite:///{file}") as runtime:
            assert len(await runtime.sessions()) == len(openers)
