"""A turn with tools whose process is killed after each of its commits, and inside its tools."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.crash.children import Child, child_of
from tests.crash.promises import check_next_turn, check_valid_for_a_provider

from tertulia import Event, Message, Runtime

pytestmark = pytest.mark.slow_crash

BY_HAND = [
    "turn.started message.added",
    "message.added",
    "tool.called",
    "tool.returned message.added",
    "tool.called",
    "tool.returned message.added",
    "message.added",
    "turn.completed",
]
AGENT = [
    "turn.started message.added",
    "usage message.added tool.called",
    "inside x",
    "tool.returned message.added",
    "usage message.added tool.called",
    "inside y",
    "tool.returned message.added",
    "usage message.added turn.completed",
]
CUTS = [
    *[("by hand", "unknown", steps) for steps in range(1, len(BY_HAND) + 1)],
    *[("by hand", "none", steps) for steps in (3, 4, 7, 8)],
    *[("agent", "unknown", steps) for steps in range(1, len(AGENT) + 1)],
    *[("agent", "none", steps) for steps in (3, 5, 8)],
    *[("agent at once", effect, steps) for effect in ("unknown", "none") for steps in (2, 3, 4, 5)],
]


def go(child: Child, driver: str, steps: int) -> None:
    """Let a child go so many steps; it stands still after the last one."""
    heard = [child.hear()]
    while len(heard) < steps:
        child.tell()
        heard.append(child.hear())
    if driver != "agent at once":  # whose tools end in any order
        assert heard == (BY_HAND if driver == "by hand" else AGENT)[:steps]


async def begin(file: Path) -> None:
    async with Runtime(f"sqlite:///{file}") as runtime:
        await runtime.session("s").send_message(Message.user("before"))


def check_honest(turn: list[Event], said: list[Message]) -> None:
    """A finished call has its own result, and any other one says that nobody knows."""
    finished = {(event.body or {})["call"] for event in turn if event.type == "tool.returned"}
    results = {message.tool_call_id: message for message in said if message.role == "tool"}
    called = [call.id for message in said for call in message.tool_calls or ()]
    assert called == ["x", "y"][: len(called)]
    for name in called:
        outcome = (results[name].metadata or {}).get("outcome")
        if name in finished:
            assert (results[name].text, outcome) == (f"charged {name}", None)
        else:
            assert outcome == "unknown"
            assert "charged" not in results[name].text


@pytest.mark.parametrize(("driver", "effect", "steps"), CUTS)
async def test_a_turn_killed_between_two_commits_leaves_a_valid_and_honest_history(
    tmp_path: Path, driver: str, effect: str, steps: int
) -> None:
    file = tmp_path / "x.db"
    await begin(file)
    with child_of("steps", file, driver, effect) as child:
        go(child, driver, steps)
        child.kill()
    async with Runtime(f"sqlite:///{file}") as runtime:
        session = runtime.session("s")
        turn = [event for event in await session.events() if event.seq > 2]
        seen = [event for event in turn if event.type == "message.added"]
        await check_next_turn(runtime, "s")
        said = await session.history()
        check_valid_for_a_provider(said)
        of_turn = said[1:-2]
        closed = turn[-1].type == "turn.completed"
        abandoned = await session.events(types="turn.abandoned")
        assert len(abandoned) == (0 if closed else 1)
        harmful = effect == "unknown" and any(event.type == "tool.called" for event in turn)
        if closed or harmful:
            assert [message.text for message in of_turn if message.role == "user"] == ["question"]
            assert len(of_turn) >= len(seen)
            check_honest(turn, of_turn)
        else:
            assert of_turn == []
