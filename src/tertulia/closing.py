"""How a turn ends: what it did decides what stays of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from tertulia import events

Effect = Literal["none", "idempotent", "unknown"]
"""What a tool may do in the world: nothing, the same however often it runs, or anything."""

HARMLESS: frozenset[str] = frozenset(("none", "idempotent"))


class Trace:
    """What a turn has done so far, in this process or as read from its log after a crash."""

    __slots__ = ("calls", "floor", "harmful", "messages", "results", "turn", "unstarted")

    def __init__(self, turn: int, floor: str | None = None) -> None:
        self.turn = turn
        self.floor = floor
        """The agent that had the floor before the turn."""
        self.messages = 0
        self.harmful = False
        self.calls: dict[str, str] = {}
        self.results: set[str] = set()
        self.unstarted: set[str] = set()
        """Calls that wait for an approval, or got none: they did not run."""

    def feed(self, kind: str, body: Mapping[str, Any]) -> None:
        """Take note of one event of the turn."""
        if kind == events.TURN_STARTED:
            self.floor = body.get("before")
        elif kind == events.TOOL_CALLED:
            effect = str(body.get("effect", "unknown"))
            self.calls[str(body.get("call"))] = effect
            self.unstarted.discard(str(body.get("call")))
            self.harmful = self.harmful or effect not in HARMLESS
        elif kind == events.APPROVAL_REQUESTED:
            self.unstarted.add(str(body.get("call")))
        elif kind == events.MESSAGE_ADDED:
            self.messages += 1
            answered = body.get("tool_call_id")
            if answered is not None:
                self.results.add(str(answered))
                known = str(answered) in self.calls or str(answered) in self.unstarted
                self.harmful = self.harmful or not known

    def outcome(self) -> Literal["failed", "interrupted"]:
        """How the turn closes when it does not complete.

        `failed` when it started no tool, or only harmless ones: the history is as if it had not
        happened. Else `interrupted`: what it did stays, and calls without a result get one that
        says that the outcome is unknown.
        """
        return "interrupted" if self.harmful else "failed"


def trace(turn: int, facts: Iterable[tuple[str, Mapping[str, Any]]]) -> Trace:
    """The trace of a turn from its events, as (type, body)."""
    result = Trace(turn)
    for kind, body in facts:
        result.feed(kind, body)
    return result
