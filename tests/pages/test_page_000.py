"""The page on live sessions with the older names: its blocks, with only import lines changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.pages.live import (
    Logger,
    Seller,
    events_go_from_the_logger_to_the_agent,
    hooks_see_both_directions,
    the_script_serves_and_says_when_it_is_interrupted,
)
from tests.pages.running import Names, run

from tertulia.compat.atoms import AgentSession


async def test_graph_construction() -> None:
    names = await run(
        "000_graph_construction", AgentSession=AgentSession, agent=Seller(), logger=Logger()
    )
    await events_go_from_the_logger_to_the_agent(names)


async def test_event_hooks(capsys: pytest.CaptureFixture[str]) -> None:
    async def hooks(**given: Any) -> Names:
        return await run("000_event_hooks", **given)

    await hooks_see_both_directions(hooks, capsys)


async def test_complete_setup_as_a_script(tmp_path: Path) -> None:
    await the_script_serves_and_says_when_it_is_interrupted("000_complete_setup", tmp_path)


async def test_complete_setup_starts_nothing_where_it_is_imported() -> None:
    names = await run("000_complete_setup", __name__="page")
    assert names["AgentSession"] is AgentSession
    assert "app" not in names
