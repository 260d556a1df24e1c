"""How a turn ends: what it did decides what stays of it."""

from __future__ import annotations

from typing import Any

import pytest

from tertulia.closing import trace
from tertulia.events import MESSAGE_ADDED, TOOL_CALLED, TOOL_RETURNED, TURN_STARTED

Facts = list[tuple[str, dict[str, Any]]]

SAID: Facts = [(TURN_STARTED, {}), (MESSAGE_ADDED, {"role": "user", "content": "x"})]


def called(effect: str | None, call: str = "c") -> tuple[str, dict[str, Any]]:
    body = {"call": call, "name": "f"}
    return TOOL_CALLED, body if effect is None else {**body, "effect": effect}


def answered(call: str = "c") -> tuple[str, dict[str, Any]]:
    return MESSAGE_ADDED, {"role": "tool", "tool_call_id": call, "content": "done"}


@pytest.mark.parametrize(
    ("facts", "outcome", "messages"),
    [
        ([], "failed", 0),
        (SAID, "failed", 1),
        ([*SAID, called("none")], "failed", 1),
        ([*SAID, called("idempotent"), answered()], "failed", 2),
        ([*SAID, called("unknown")], "interrupted", 1),
        ([*SAID, called(None)], "interrupted", 1),
        ([*SAID, called("surprise")], "interrupted", 1),
        ([*SAID, called("none"), called("unknown", "d")], "interrupted", 1),
        ([*SAID, called("unknown"), called("none", "d")], "interrupted", 1),
        ([*SAID, (TOOL_RETURNED, {"call": "c"})], "failed", 1),
        ([*SAID, answered()], "interrupted", 2),
    ],
)
def test_a_turn_that_did_something_in_the_world_is_kept(
    facts: Facts, outcome: str, messages: int
) -> None:
    found = trace(7, facts)
    assert (found.turn, found.outcome(), found.messages) == (7, outcome, messages)
