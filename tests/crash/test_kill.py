"""``kill -9`` of a process that writes, at random moments, again and again on one file."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import anyio
import pytest
from tests.crash.children import Child, child_of
from tests.crash.promises import AT_ONCE, check_next_turn, losses
from tests.crash.workload import Fact

from tertulia import Runtime

pytestmark = pytest.mark.slow_crash

KILLS = [
    pytest.param(1, 20, id="20 times"),
    pytest.param(10, 20, id="200 times", marks=[pytest.mark.soak, pytest.mark.timeout(600)]),
]


def kill_at_a_random_moment(child: Child, luck: random.Random) -> list[Fact]:
    """Kill a child that writes; what it said was acknowledged."""
    heard: list[str] = []
    if luck.random() < 0.8:
        heard = [child.hear() for _ in range(luck.randrange(1, 150))]
        time.sleep(luck.uniform(0, 0.005))
    else:
        time.sleep(luck.uniform(0, 0.4))
    heard += child.kill()
    return [json.loads(line) for line in heard]


async def check_all(file: Path, facts: list[Fact], luck: random.Random) -> None:
    async with Runtime(f"sqlite:///{file}") as runtime:
        with anyio.fail_after(AT_ONCE):
            infos = await runtime.sessions(limit=None)
        if infos:
            await check_next_turn(runtime, luck.choice(infos).id)
        assert await losses(runtime, facts) == []
        for info in infos:
            await check_next_turn(runtime, info.id)
    assert not list(Path(f"{file}.workers").glob("[0-9a-f]" * 32))


@pytest.mark.parametrize(("files", "kills"), KILLS)
async def test_all_that_was_acknowledged_survives_kill_9_at_any_moment(
    tmp_path: Path, files: int, kills: int
) -> None:
    acknowledged = 0
    for number in range(files):
        file = tmp_path / f"{number}.db"
        facts: list[Fact] = []
        for kill in range(kills):
            luck = random.Random(number * kills + kill)
            with child_of("writes", file, kill) as child:
                facts += kill_at_a_random_moment(child, luck)
            await check_all(file, facts, luck)
        acknowledged += len(facts)
    assert acknowledged > files * kills
