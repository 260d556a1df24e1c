"""Rescue: what is done about an answer that cannot be used, a tool or a model that failed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from inspect import isawaitable
from typing import Any, Literal

import msgspec

from tertulia.errors import InvalidInput

Problem = Literal["empty_answer", "invalid_answer", "unknown_tool", "tool_error", "model_error"]


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """What went wrong in a turn, as the function that rescues it is told."""

    problem: Problem
    reason: str
    """In words, for a model or a person."""
    agent: str | None
    text: str = ""
    """The answer that cannot be used."""
    attempt: int
    """The how many-th failure of the turn it is, from 1."""
    error: BaseException | None = None
    """What the tool or the model raised."""


class Retry(msgspec.Struct, frozen=True):
    """What a rescue function returns to ask the model again, with a reason of its own or ours."""

    reason: str | None = None


Function = Callable[[Failure], "str | Retry | Awaitable[str | Retry | None] | None"]
Strategy = Literal["retry", "placeholder", "raise"] | Function

STRATEGIES = ("retry", "placeholder", "raise")
PLACEHOLDERS = (
    "Sorry, I did not get that. Could you say it again?",
    "Sorry, something went wrong on my side. Could you try once more?",
)
MAX_RETRIES = 10


class Rescue(msgspec.Struct, frozen=True, kw_only=True):
    """What a swarm does where there is no answer to give.

    `strategy` is

    - ``"retry"``: the model is asked again and told the reason, at most `retries` times in a
      turn; then `then`,
    - ``"placeholder"``: one of `placeholders` is the answer, of the kind ``placeholder``; they
      are used in their order, one turn after the other,
    - ``"raise"``: the turn fails with the error,
    - a function of the `Failure`, sync or async: the text it returns is the answer (of the kind
      ``placeholder``), `Retry()` asks again within the limit, None raises.

    Raises InvalidInput for settings that cannot be.
    """

    strategy: Strategy = "retry"
    retries: int = 3
    then: Literal["placeholder", "raise"] = "raise"
    placeholders: Sequence[str] = PLACEHOLDERS

    def __post_init__(self) -> None:
        known = callable(self.strategy) or self.strategy in STRATEGIES
        if not known:
            raise InvalidInput(
                f"strategy={self.strategy!r} does not exist; use {', '.join(STRATEGIES)}, or a "
                "function of the failure"
            )
        whole = type(self.retries) is int and 0 <= self.retries <= MAX_RETRIES
        if not whole:
            raise InvalidInput(f"retries is {self.retries!r}; it is a number, 0 to {MAX_RETRIES}")
        if self.then not in STRATEGIES[1:]:
            raise InvalidInput(f"then={self.then!r} does not exist; use placeholder or raise")
        given: Any = self.placeholders
        if isinstance(given, str) or not given or not all(_is_text(each) for each in given):
            raise InvalidInput("placeholders is a list of one text or more, none of them empty")

    @property
    def name(self) -> str:
        """The strategy as the log names it."""
        return self.strategy if isinstance(self.strategy, str) else "function"

    async def decide(
        self, failure: Failure, *, again: bool = True, answered: int = 0
    ) -> str | Retry | None:
        """The answer to give, or to ask again where that can be (`again`), or None to raise.

        `answered` is how many failures of the client were answered in earlier turns.
        """
        again = again and failure.attempt <= self.retries
        if isinstance(self.strategy, str):
            return self._settled(self.strategy, failure, answered, again=again)
        said = self.strategy(failure)
        decided = await said if isawaitable(said) else said
        if isinstance(decided, Retry):
            if not again:
                return self._settled(self.then, failure, answered)
            return Retry(decided.reason or failure.reason)
        if decided is None or _is_text(decided):
            return decided
        raise InvalidInput(
            f"the rescue function gave {decided!r}; it gives a text, Retry() or None"
        )

    def _settled(
        self, strategy: str, failure: Failure, answered: int, *, again: bool = False
    ) -> str | Retry | None:
        if strategy == "retry":
            if again:
                return Retry(failure.reason)
            strategy = self.then
        if strategy == "raise":
            return None
        return self.placeholders[(failure.attempt - 1 + answered) % len(self.placeholders)]


def as_rescue(given: Any) -> Rescue:
    """The rescue that is meant: a `Rescue`, a strategy, or None for the default."""
    if given is None:
        return Rescue()
    return given if isinstance(given, Rescue) else Rescue(strategy=given)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())
