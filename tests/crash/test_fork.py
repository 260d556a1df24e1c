"""``os.fork`` of a process that uses a runtime: dead in the child, alive in the parent."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.crash.children import Child, child_of
from tests.crash.promises import check_next_turn

from tertulia import Runtime

pytestmark = pytest.mark.slow_crash


def test_a_forked_child_is_refused_every_call_and_the_parent_goes_on(tmp_path: Path) -> None:
    with child_of("forks", tmp_path / "x.db") as parent:
        assert json.loads(parent.hear()) == []
        assert json.loads(parent.hear()) == [0, ["before", "after"], True]
        assert parent.end() == []
    left = list((tmp_path / "x.db.workers").glob("[0-9a-f]" * 32))
    assert left == []


@contextmanager
def forked_in_a_turn(file: Path) -> Generator[tuple[Child, int]]:
    """A parent in a turn, and its child, which was refused and still lives."""
    with child_of("forks_in_a_turn", file) as parent:
        assert [parent.hear(), parent.hear()] == ["ForkedRuntimeError"] * 2
        parent.tell()
        yield parent, int(parent.hear())


async def test_a_turn_goes_on_in_the_parent_when_the_child_was_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.db"
    with forked_in_a_turn(file) as (parent, _):
        parent.tell("end")
        assert parent.end() == ["ended"]
    async with Runtime(f"sqlite:///{file}") as runtime:
        session = runtime.session("s")
        assert [message.text for message in await session.history()] == ["question", "answer"]
        assert await session.verify()


async def test_a_forked_child_that_lives_on_does_not_keep_a_killed_parent_alive(
    tmp_path: Path,
) -> None:
    file = tmp_path / "x.db"
    with forked_in_a_turn(file) as (parent, child):
        try:
            parent.kill_only()
            async with Runtime(f"sqlite:///{file}") as runtime:
                await check_next_turn(runtime, "s")
        finally:
            os.kill(child, signal.SIGKILL)
