"""Several processes that write on one file as fast as they can."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.crash.children import Child, children

from tertulia import Runtime

pytestmark = pytest.mark.slow_crash

SHORT_AND_FULL = [2.0, pytest.param(10.0, marks=pytest.mark.soak)]
LONGEST_WAIT = 1.0


async def run(file: Path, busy: list[Child]) -> tuple[list[float], list[int]]:
    """Let them run; the longest wait and the count of commits of each. Nothing may be lost."""
    for child in busy:
        assert child.hear() == "ready"
    for child in busy:
        child.tell()
    results = [json.loads(child.hear()) for child in busy]
    async with Runtime(f"sqlite:///{file}") as runtime:
        for _, name, sent in results:
            session = runtime.session(name)
            there = {message.seq: message.text for message in await session.history()}
            assert [(seq, text) for seq, text in sent if there.get(seq) != text] == []
            assert await session.verify()
        infos = await runtime.sessions(limit=None)
        total = sum(len(sent) for _, _, sent in results)
        assert sum(info.messages for info in infos) == total + len(busy)
    return [longest for longest, _, _ in results], [len(sent) for _, _, sent in results]


@pytest.mark.parametrize("seconds", SHORT_AND_FULL)
@pytest.mark.parametrize("count", [2, 4])
async def test_of_busy_processes_none_starves_none_waits_long_and_nothing_is_lost(
    tmp_path: Path, count: int, seconds: float
) -> None:
    file = tmp_path / "x.db"
    with children("is_busy", file, "own", seconds, count=count) as busy:
        waits, commits = await run(file, busy)
    assert max(waits) < LONGEST_WAIT
    assert min(commits) > 0.3 * sum(commits) * 2 / count


@pytest.mark.parametrize("seconds", SHORT_AND_FULL)
async def test_two_busy_processes_on_one_session_lose_nothing_and_none_waits_long(
    tmp_path: Path, seconds: float
) -> None:
    file = tmp_path / "x.db"
    with children("is_busy", file, "common", seconds, count=2) as busy:
        waits, commits = await run(file, busy)
    assert max(waits) < LONGEST_WAIT
    assert min(commits) > 0.3 * sum(commits)
