"""Pruning: which older messages a strategy hides. It cuts between turns only.

Hidden is not erased: the log keeps everything, and a later event can show it again.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec

from tertulia.errors import InvalidInput

StrategyKind = Literal["keep_last", "summarize_old", "keep_important"]
STRATEGIES: Final = (
    "keep_last_<N>",
    "keep_last_n (n=)",
    "sliding_window (window_size=)",
    "summarize_old (threshold=)",
    "keep_important (n=)",
)
MAX_KEEP: Final = 1_000_000_000
SUMMARIZE_KEEPS: Final = 50
UNJUDGED: Final = 10

_KEEP_LAST: Final = re.compile(r"keep_last_([0-9]{1,12})", re.ASCII)


class Strategy(msgspec.Struct, frozen=True):
    """How to prune; the newest `keep` messages stay as they are."""

    kind: StrategyKind
    keep: int


class PruneReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a prune did, in numbers of messages; true when something was hidden.

    `kept` of the `before` messages stay; `after` counts the summary too, where there is one.
    `position` is the `seq` up to which everything was hidden, `summary` the text that stands
    for it now.
    """

    strategy: str
    hidden: int
    kept: int
    before: int
    after: int
    position: int | None = None
    summary: str | None = None

    def __bool__(self) -> bool:
        return self.hidden > 0


class Spent(msgspec.Struct, frozen=True):
    """What a model was asked for a prune; 0 where that is not known."""

    model: str | None = None
    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    def plus(self, other: Spent) -> Spent:
        """This and more."""
        return Spent(
            self.model or other.model,
            self.requests + other.requests,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
        )

    def body(self) -> dict[str, Any]:
        """As a part of the event; nothing where no model was asked."""
        if not self.requests:
            return {}
        usage = {
            "requests": self.requests,
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
        }
        return {**({"model": self.model} if self.model else {}), "usage": usage}


class Condensed(msgspec.Struct, frozen=True):
    """A summary, and what it took to make it."""

    text: str
    spent: Spent = Spent()


class Judged(msgspec.Struct, frozen=True):
    """Which of some messages are important, and what it took to say so."""

    important: list[bool]
    spent: Spent = Spent()


def parse(
    strategy: str,
    *,
    n: int | None = None,
    window_size: int | None = None,
    threshold: int | None = None,
) -> Strategy:
    """The strategy of that name with its number.

    Raises InvalidInput for an unknown name, a missing or impossible number, or one that belongs
    to another strategy.
    """
    given = {"n": n, "window_size": window_size, "threshold": threshold}
    number = _KEEP_LAST.fullmatch(_text(strategy))
    if number is not None:
        _only(strategy, given, None)
        return Strategy("keep_last", _number("N in keep_last_<N>", int(number[1])))
    match strategy:
        case "keep_last_n":
            _only(strategy, given, "n")
            return Strategy("keep_last", _needed(strategy, "n", n))
        case "sliding_window":
            _only(strategy, given, "window_size")
            return Strategy("keep_last", _needed(strategy, "window_size", window_size))
        case "summarize_old":
            _only(strategy, given, "threshold")
            default = SUMMARIZE_KEEPS if threshold is None else threshold
            return Strategy("summarize_old", _number("threshold", default))
        case "keep_important":
            _only(strategy, given, "n")
            return Strategy("keep_important", _number("n", UNJUDGED if n is None else n))
        case _:
            raise InvalidInput(
                f"prune strategy {strategy!r} does not exist; use one of {', '.join(STRATEGIES)}"
            )


def cut(turns: Sequence[int], keep: int, *, more: bool = False) -> int | None:
    """The position up to which to hide, so that at most `keep` messages stay.

    `turns` holds the turn of each visible message, oldest first: all of them, or at least the
    newest keep + 1, with `more` where older visible ones were left out. No turn is ever parted,
    and the newest one stays whole even where it is longer than `keep`. None when nothing is to
    be hidden; where only the newest turn was given and more is there, the position before it.
    """
    if len(turns) <= keep:
        return None
    first = len(turns) - keep
    while 0 < first < len(turns) and turns[first] == turns[first - 1]:
        first += 1
    if first >= len(turns):
        first = turns.index(turns[-1])
    return turns[first] - 1 if first > 0 or more else None


def holes(
    turns: Sequence[int], seqs: Sequence[int], important: Sequence[bool], keep: int
) -> list[tuple[int, int]]:
    """The stretches low < seq <= high to hide, so that what is important stays.

    The sequences hold the turn, the `seq` and the judgement of each visible message, oldest
    first. A turn stays whole when any of its messages is important or among the newest `keep`.
    """
    judged = len(turns) - keep
    stay = {turn for i, turn in enumerate(turns) if i >= judged or important[i]}
    result: list[tuple[int, int]] = []
    open_low: int | None = None
    for turn, seq in zip(turns, seqs, strict=True):
        if turn in stay:
            open_low = None
            continue
        if open_low is None:
            open_low = turn - 1
            result.append((open_low, seq))
        result[-1] = (open_low, seq)
    return result


def unjudged(turns: Sequence[int], keep: int) -> int:
    """How many of the oldest messages there is something to say about.

    `turns` holds the turn of each visible message, oldest first. The newest `keep` stay, and so
    does the rest of the turns that they belong to.
    """
    first = max(len(turns) - keep, 0)
    while 0 < first < len(turns) and turns[first] == turns[first - 1]:
        first -= 1
    return first


def _text(strategy: object) -> str:
    if not isinstance(strategy, str):
        raise InvalidInput(
            f"a prune strategy is text, not {type(strategy).__name__}; use one of "
            f"{', '.join(STRATEGIES)}"
        )
    return strategy


def _only(strategy: str, given: dict[str, int | None], own: str | None) -> None:
    other = [name for name, value in given.items() if value is not None and name != own]
    if other:
        use = f"it takes {own}=" if own else "its number is in its name"
        raise InvalidInput(f"prune({strategy!r}) does not take {other[0]}=; {use}")


def _needed(strategy: str, name: str, value: int | None) -> int:
    if value is None:
        raise InvalidInput(f"prune({strategy!r}) needs {name}=; write for example {name}=50")
    return _number(name, value)


def _number(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidInput(f"{name} is {value!r}; write how many messages stay, a whole number")
    if value < 1:
        raise InvalidInput(f"{name} is {value}; keep at least 1 message, or hide all by clear()")
    if value > MAX_KEEP:
        raise InvalidInput(f"{name} is {value}; at most {MAX_KEEP:,} messages can be kept")
    return value
