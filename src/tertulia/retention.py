"""Retention: what a policy forbids, and what it makes due.

What is stronger comes first: a legal hold, a person's erasure, `immutable`, time. Days run from
the last activity of the session. `immutable` together with `ttl_days` means: keep until then.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Final, Literal, cast

import msgspec

from tertulia.clock import DAY, to_iso
from tertulia.errors import InvalidInput

MAX_DAYS: Final = 365_000
MAX_MESSAGES: Final = 1_000_000_000

DueAction = Literal["delete", "end", "prune", "summarize", "erase"]
Deed = Literal["prune", "clear", "rewind", "delete", "erase"]

_WINDOWS: Final = ("sliding_window", "keep_last_n")
SUMMARIZE: Final = "summarize_old"
_JUDGED: Final = "keep_important"
_KEEP_LAST: Final = re.compile(r"keep_last_([1-9][0-9]{0,11})", re.ASCII)


class Retention(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How long a session is kept, how long it may grow, and what nobody may do to it.

    Raises InvalidInput at construction for values that cannot be or that contradict each other.
    """

    ttl_days: float | None = None
    """Days after the last activity when the session is due to be deleted."""
    idle_days: float | None = None
    """Days after the last activity when the conversation is due to be ended."""
    max_messages: int | None = None
    """How many messages may be visible; more are due to be pruned."""
    auto_prune: bool = False
    """Whether what is due happens by itself; without it a sweep only lists it."""
    prune_strategy: str | None = None
    """How `max_messages` is kept: `sliding_window` (the default), `keep_last_<N>`, or
    `summarize_old`, whose summaries a sweep makes."""
    immutable: bool = False
    """Nobody may prune, clear, rewind or delete, before `ttl_days` are over."""
    legal_hold: bool = False
    """Nothing is pruned, ended, deleted or erased until the hold is released."""

    def __post_init__(self) -> None:
        _check_number("ttl_days", self.ttl_days, MAX_DAYS)
        _check_number("idle_days", self.idle_days, MAX_DAYS)
        _check_number("max_messages", self.max_messages, MAX_MESSAGES, whole=True)
        for name in ("auto_prune", "immutable", "legal_hold"):
            if not isinstance(getattr(self, name), bool):
                raise _wrong(f"{name} is {getattr(self, name)!r}", "write True or False")
        _check_strategy(self.prune_strategy, self.max_messages)
        _check_contradictions(self)

    @property
    def keep(self) -> int | None:
        """How many messages stay when `max_messages` is crossed; None where it is not set.

        Half of them where they are to be summarised, so that a summary is due now and then and
        not with every message.
        """
        if self.summarizes and self.max_messages is not None:
            return self.max_messages // 2
        match = _KEEP_LAST.fullmatch(self.prune_strategy or "")
        return int(match[1]) if match else self.max_messages

    @property
    def summarizes(self) -> bool:
        """Whether a sweep summarises what `max_messages` has hidden."""
        return self.prune_strategy == SUMMARIZE


class Due(msgspec.Struct, frozen=True):
    """One thing that retention has to do now; `acts` is False where it is only to be listed."""

    action: DueAction
    reason: str
    acts: bool


def parse(value: Mapping[str, Any] | Retention | None) -> Retention | None:
    """The policy in a mapping, checked; None stays None.

    Raises InvalidInput, saying what to write, for unknown keys and impossible values.
    """
    if value is None or isinstance(value, Retention):
        return value
    if not isinstance(value, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidInput(
            f"retention is a {type(value).__name__}; write a mapping like "
            '{"ttl_days": 30, "auto_prune": True}'
        )
    unknown = sorted(str(key) for key in value if key not in Retention.__struct_fields__)
    if unknown:
        raise _wrong(
            f"{', '.join(unknown)} does not exist",
            f"use {', '.join(Retention.__struct_fields__)}",
        )
    return Retention(**value)


def to_dict(policy: Retention | None) -> dict[str, Any] | None:
    """The policy as JSON-able data, without what is not set; `parse` reads it."""
    return None if policy is None else cast("dict[str, Any]", msgspec.to_builtins(policy))


def weakens(old: Retention | None, new: Retention | None) -> str | None:
    """Why `new` must not replace `old`, or None where it may. A `new` of None means as stored."""
    if old is None or new is None:
        return None
    if old.legal_hold and not new.legal_hold:
        return "it would release the legal hold; call release_hold() for that"
    return _weakens_immutable(old, new) if old.immutable else None


def _weakens_immutable(old: Retention, new: Retention) -> str | None:
    if not new.immutable:
        return "the session is immutable, and that cannot be taken away"
    if new.ttl_days is None:
        return None
    if old.ttl_days is None:
        return "the session is immutable without an end; ttl_days cannot be added"
    if new.ttl_days < old.ttl_days:
        return (
            f"the session is immutable; ttl_days={old.ttl_days:g} cannot become "
            f"{new.ttl_days:g}, only more"
        )
    return None


def due_at(
    policy: Retention | None, active: int, *, ended: bool = False, visible: int = 0
) -> int | None:
    """When a sweep should look at a session next, in microseconds; None for never.

    `active` is the time of its last activity in microseconds, `visible` how many messages it
    shows. A session with too many is due at once, and one that has ended is not ended again.
    """
    if policy is None:
        return None
    times = [_after(active, policy.ttl_days)]
    if not ended:
        times.append(_after(active, policy.idle_days))
    if policy.max_messages is not None and visible > policy.max_messages:
        times.append(active)
    return min((time for time in times if time is not None), default=None)


def due(
    policy: Retention | None, *, active: int, visible: int, held: bool, ended: bool, now: int
) -> list[Due]:
    """What a sweep would do to a session at `now`; times in microseconds.

    When the session is due to be deleted, nothing else is listed.
    """
    if policy is None:
        return []
    held = held or policy.legal_hold
    acts = policy.auto_prune and not held
    note = "; a legal hold keeps it" if held else "" if acts else "; auto_prune is off"
    last = f"the last activity was at {to_iso(active)}"
    if _is_over(active, policy.ttl_days, now):
        return [Due("delete", f"ttl_days={policy.ttl_days:g} are over, {last}{note}", acts)]
    result: list[Due] = []
    if not ended and _is_over(active, policy.idle_days, now):
        result.append(Due("end", f"idle_days={policy.idle_days:g} are over, {last}{note}", acts))
    if policy.max_messages is not None and visible > policy.max_messages:
        text = f"{visible:,} messages are more than max_messages={policy.max_messages:,}{note}"
        result.append(Due("prune", text, acts))
    return result


def forbids(
    policy: Retention | None, held: bool, action: Deed, *, active: int, now: int
) -> str | None:
    """Why `action` is refused now, or None where it is allowed; times in microseconds.

    A person's erasure (`erase`) is stronger than `immutable`, a legal hold is stronger than all.
    When the days of an immutable session are over, it may be deleted, and still not be changed.
    """
    if held or (policy is not None and policy.legal_hold):
        return f"{_PARTICIPLES[action]} is refused by a legal hold; release_hold() ends it"
    if policy is None or not policy.immutable or action == "erase":
        return None
    end = _after(active, policy.ttl_days)
    if action != "delete" or end is None:
        return f"{_PARTICIPLES[action]} is refused, because the session is immutable"
    if now < end:
        return f"deleting is refused, because the session is immutable until {to_iso(end)}"
    return None


_PARTICIPLES: Final[dict[Deed, str]] = {
    "prune": "pruning",
    "clear": "clearing",
    "rewind": "rewinding",
    "delete": "deleting",
    "erase": "erasing",
}


def _after(active: int, days: float | None) -> int | None:
    return None if days is None else active + math.ceil(days * DAY)


def _is_over(active: int, days: float | None, now: int) -> bool:
    end = _after(active, days)
    return end is not None and now >= end


def _check_number(name: str, value: object, most: int, *, whole: bool = False) -> None:
    if value is None:
        return
    kinds = int if whole else (int, float)
    what = "a whole number" if whole else "a number of days"
    if isinstance(value, bool) or not isinstance(value, kinds):
        raise _wrong(f"{name} is {value!r}", f"write {what}, or leave it out")
    if not 0 < value <= most:  # also refuses NaN
        raise _wrong(
            f"{name} is {value}", f"write {what} above 0 and up to {most:,}, or leave it out"
        )


def _check_strategy(strategy: object, most: int | None) -> None:
    if strategy is None:
        return
    choice = "use sliding_window, keep_last_<N> or summarize_old"
    if strategy == _JUDGED:
        raise _wrong(
            f"prune_strategy {_JUDGED!r} needs a model to say which messages may go, and the "
            "append that crosses max_messages cannot wait for it",
            f"{choice}, and call session.prune({_JUDGED!r}) when there is time",
        )
    match = _KEEP_LAST.fullmatch(strategy) if isinstance(strategy, str) else None
    if not match and strategy not in (*_WINDOWS, SUMMARIZE):
        raise _wrong(f"prune_strategy {strategy!r} does not exist", choice)
    if most is None:
        raise _wrong("prune_strategy says how to keep max_messages", "add max_messages")
    if strategy == SUMMARIZE and most < 2:
        raise _wrong("summarize_old keeps a summary and messages", "use max_messages of 2 or more")
    if match and int(match[1]) > most:
        raise _wrong(
            f"prune_strategy {strategy!r} keeps more than max_messages={most}",
            "use a smaller N or raise max_messages",
        )


def _check_contradictions(policy: Retention) -> None:
    if policy.immutable and policy.max_messages is not None:
        raise _wrong(
            "immutable forbids the pruning that max_messages asks for", "leave one of them out"
        )
    limits = (policy.ttl_days, policy.idle_days, policy.max_messages)
    if policy.auto_prune and all(limit is None for limit in limits):
        raise _wrong("auto_prune has nothing to act on", "add ttl_days, idle_days or max_messages")


def _wrong(what: str, write: str) -> InvalidInput:
    return InvalidInput(f"retention: {what}; {write}")
