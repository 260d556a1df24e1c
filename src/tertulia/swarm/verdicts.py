"""Verdicts and bans as events of the log and of the bus."""

from __future__ import annotations

from typing import Any

from tertulia.bus import BusEvent
from tertulia.clock import to_iso
from tertulia.errors import PolicyError
from tertulia.policies import Ban, Direction, Verdict
from tertulia.swarm.feed import Feed
from tertulia.values import storable

MAX_TEXT = 10_000
"""Characters of a refused text that the log keeps."""


def told(verdict: Verdict, text: str) -> dict[str, Any]:
    """A verdict as its event in the log; a refused text is kept there, and only there."""
    body: dict[str, Any] = {"direction": verdict.direction, "allowed": verdict.allowed}
    if verdict.passed:
        body["passed"] = list(verdict.passed)
    if not verdict.allowed:
        body |= {"policy": verdict.policy, "reason": verdict.reason, "banned": verdict.banned}
        body |= {"text": storable(text[:MAX_TEXT]), "message": verdict.message}
    return body


def failure_told(direction: Direction, error: PolicyError) -> dict[str, Any]:
    """A policy that gave no verdict, as its event in the log."""
    cause = type(error.__cause__ or error).__name__
    return {"direction": direction, "allowed": False, "policy": error.policy, "error": cause}


def ban_told(ban: Ban, *, auto: bool = False) -> dict[str, Any]:
    """A ban as its event in the log; `auto` where a policy has set it by itself."""
    body: dict[str, Any] = {"policy": ban.policy, "until": _iso(ban), "reason": ban.reason}
    return {**body, "auto": True} if auto else body


def ban_event(feed: Feed, kind: str, ban: Ban) -> BusEvent:
    """A ban, or its end, for the bus."""
    said = {"until": _iso(ban), "reason": ban.reason}
    return feed.event("policy", kind, output=said, policy_name=ban.policy)


def _iso(ban: Ban) -> str | None:
    return None if ban.until is None else to_iso(ban.until)
