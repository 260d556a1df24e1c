"""What the work that is cut off in these tests must be able to do when nothing goes wrong."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from tests.crash.promises import check_next_turn, losses
from tests.crash.workload import Fact, Worker

from tertulia import Message, Runtime


@pytest.mark.parametrize("seed", [1, 2])
async def test_work_that_is_not_cut_off_loses_nothing(tmp_path: Path, seed: int) -> None:
    facts: list[Fact] = []
    async with Runtime(f"sqlite:///{tmp_path / 'x.db'}") as runtime:
        worker = Worker(runtime, "a", random.Random(seed), facts.append)
        for _ in range(150):
            await worker.step()
    kinds = {str(kind) for kind, *_ in facts}
    assert kinds == {"head", "count", "visits", "going", "gone"}
    async with Runtime(f"sqlite:///{tmp_path / 'x.db'}") as runtime:
        assert await losses(runtime, facts) == []
        for info in await runtime.sessions(limit=None):
            await check_next_turn(runtime, info.id)


async def test_a_fact_that_is_not_so_is_found(tmp_path: Path) -> None:
    async with Runtime(f"sqlite:///{tmp_path / 'x.db'}") as runtime:
        await runtime.session("s", user_id="ann").send_message(Message.user("hello"))
        wrong: list[Fact] = [
            ["head", "s", 2, "00"],
            ["head", "s", 3, "00"],
            ["head", "t", 1, "00"],
            ["count", "s", 1],
            ["visits", "s", 1],
            ["gone", "s", 0],
        ]
        assert len(await losses(runtime, wrong)) == len(wrong)


async def test_a_fork_is_readable_when_its_parent_was_pruned_before_and_deleted_after(
    tmp_path: Path,
) -> None:
    async with Runtime(f"sqlite:///{tmp_path / 'x.db'}") as runtime:
        parent = runtime.session("parent")
        for number in range(4):
            await parent.send_message(Message.user(str(number)))
        await parent.prune("keep_last_2")
        fork = await parent.fork("fork")
        await fork.send_message(Message.user("own"))
        await parent.delete()
        assert [message.text for message in await fork.history()] == ["own"]
