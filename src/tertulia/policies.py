"""Policies: what may be said to a swarm and by it, and the rule of bans.

    class NoCompetitors(Policy):
        async def validate_input(self, message: str, context: PolicyContext) -> bool:
            return "acme" not in message.lower()

A policy belongs to any number of swarms and clients at once, so it should keep nothing about one
of them in itself: `context.state` is the place for that.
"""

from __future__ import annotations

import difflib
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import date, timedelta
from inspect import signature
from typing import Any, Final, Literal, cast

import msgspec

from tertulia.clock import DAY, MICROSECONDS, from_moment, to_iso
from tertulia.errors import ConfigurationError, InvalidInput
from tertulia.values import identifier, text

Direction = Literal["input", "output"]

BAN_MESSAGE: Final = "I am not going to discuss it!"
"""What a client gets to hear where the policy says nothing else."""
EVERYTHING: Final = "*"
"""The word for all policies: a ban from the whole swarm."""
MAX_REASON: Final = 1_000
"""Characters of the reason of a ban."""
MAX_WINDOW: Final = 100_000
_LAST_MOMENT: Final = from_moment("9999-12-31")
_LONGEST: Final = 36_500 * DAY
_VALIDATORS: Final = ("validate_input", "validate_output")
_LIKE: Final = 0.75
"""How much a name is like that of a validator if it was meant."""


class PolicyContext(msgspec.Struct, frozen=True, kw_only=True):
    """About whom and where a policy is asked."""

    client_id: str
    swarm: str
    """The name of the swarm."""
    agent: str
    """The name of the agent that has the floor."""
    policy: str
    """The name of the policy that is asked."""
    session: Any
    """The client's session."""
    state: Any
    """The scoped state of that session."""
    direction: Direction


class Refusal(msgspec.Struct, frozen=True):
    """What a validator may return instead of False, to say why. It is false.

    Raises InvalidInput for a reason that is no text.
    """

    reason: str = ""

    def __post_init__(self) -> None:
        text(self.reason, "the reason of a refusal")

    def __bool__(self) -> bool:
        return False


Judgement = bool | Refusal
"""What a validator says: True, False, or a `Refusal`."""
Judging = Judgement | Awaitable[Judgement]
Said = str | Awaitable[str | None] | None
BanMessage = str | Callable[[PolicyContext], Said]


class Policy:
    """What may be said to a swarm and by it; subclass it.

    A subclass overrides `validate_input`, `validate_output` or both, and may set the attributes
    below for all of its instances. The parameters set them for one. Raises InvalidInput for a
    parameter that cannot be.
    """

    name: str = "Policy"
    """How it is called in verdicts, bans and events: the name of the class if that sets none."""
    ban_message: str | Callable[..., Said] = BAN_MESSAGE
    """What the client hears when the policy refuses: text, or a function of the context (also
    async, also a method). None and empty text stand for the default text."""
    auto_ban: bool = False
    """Whether a client is banned as soon as the policy refuses something."""
    ban_for: float | timedelta | None = None
    """How long such a ban lasts, in seconds; None is for ever."""
    chunk_window: int | None = None
    """Declares that the output may be checked while it comes, on what there is of it so far:
    text leaves once it lies at least so many characters behind the newest text that the policy
    accepted, so what it looks for should be no longer. None holds an answer until it is whole."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "name" not in vars(cls):
            cls.name = cls.__name__

    def __init__(
        self,
        *,
        name: str | None = None,
        auto_ban: bool | None = None,
        ban_message: BanMessage | None = None,
        ban_for: float | timedelta | None = None,
        chunk_window: int | None = None,
    ) -> None:
        given = {
            "name": name,
            "auto_ban": auto_ban,
            "ban_message": ban_message,
            "ban_for": ban_for,
            "chunk_window": chunk_window,
        }
        vars(self).update({key: value for key, value in given.items() if value is not None})
        _check(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"

    def validate_input(self, message: str, context: PolicyContext, /) -> Judging:
        """Whether a client may say this: True, False or `refuse(why)`; may be async.

        One that is not async runs on the event loop and must not block.
        """
        return _accept()

    def validate_output(self, text: str, context: PolicyContext, /) -> Judging:
        """Whether a client may be told this: True, False or `refuse(why)`; may be async."""
        return _accept()

    def refuse(self, reason: str) -> Refusal:
        """What a validator returns to say no and why. Raises InvalidInput for what is no text."""
        return Refusal(reason)

    @property
    def checks_input(self) -> bool:
        """Whether it has a `validate_input` of its own."""
        return _is_own(self, "validate_input")

    @property
    def checks_output(self) -> bool:
        """Whether it has a `validate_output` of its own."""
        return _is_own(self, "validate_output")


async def _accept() -> bool:
    return True


class Ban(msgspec.Struct, frozen=True):
    """A client may not talk to a swarm because of a policy, or of no certain one (``*``)."""

    policy: str
    since: int
    """Microseconds since 1970-01-01 UTC, as is `until`."""
    until: int | None = None
    """When it is over; None is for ever."""
    reason: str = ""

    def stands(self, now: int) -> bool:
        """Whether it is in force at a moment; at `until` it is over."""
        return self.until is None or now < self.until


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What the policies of a swarm say about one text."""

    allowed: bool
    direction: Direction
    policy: str | None = None
    """The policy that refused, the first in order; ``*`` for a ban from the whole swarm."""
    reason: str = ""
    banned: bool = False
    """Whether it was refused because of a ban that stood already; nobody looked at the text."""
    message: str = ""
    """What the client hears instead: the ban message of that policy."""
    passed: tuple[str, ...] = ()
    """The policies that looked at it and accepted it, in order."""
    ban: Ban | None = None
    """The ban that this refusal has set (`auto_ban`)."""


# -- the rule of bans


def ban_of(bans: Iterable[Ban], policy: str, now: int) -> Ban | None:
    """The ban under this very name that stands, if there is one."""
    return next((ban for ban in bans if ban.policy == policy and ban.stands(now)), None)


def is_banned(bans: Sequence[Ban], policy: str, now: int) -> bool:
    """Whether a ban for this policy stands, or one from the whole swarm."""
    return any(ban_of(bans, name, now) for name in (policy, EVERYTHING))


def standing(bans: Iterable[Ban], now: int) -> tuple[Ban, ...]:
    """The bans without those that are over."""
    return tuple(ban for ban in bans if ban.stands(now))


def added(
    bans: Iterable[Ban], wanted: Iterable[Ban], now: int
) -> tuple[tuple[Ban, ...], list[Ban]]:
    """All bans that stand with the wanted ones, and those of them that are new or last longer.

    A ban never gets shorter, and one that lasts longer keeps its beginning.
    """
    kept = {ban.policy: ban for ban in standing(bans, now)}
    changed: dict[str, Ban] = {}
    for ban in standing(wanted, now):
        before = kept.get(ban.policy)
        if before is not None:
            if not _is_later(ban.until, before.until):
                continue
            ban = Ban(ban.policy, before.since, ban.until, ban.reason or before.reason)  # noqa: PLW2901
        kept[ban.policy] = changed[ban.policy] = ban
    return tuple(kept.values()), list(changed.values())


def lifted(
    bans: Iterable[Ban], policies: Iterable[str] | None, now: int
) -> tuple[tuple[Ban, ...], list[Ban]]:
    """The bans that stay, and those that stood and are lifted: under these names, or all."""
    names = None if policies is None else set(policies)
    stay: list[Ban] = []
    gone: list[Ban] = []
    for ban in standing(bans, now):
        (gone if names is None or ban.policy in names else stay).append(ban)
    return tuple(stay), gone


def _is_later(until: int | None, than: int | None) -> bool:
    return than is not None and (until is None or until > than)


def until_of(value: Any, now: int) -> int | None:
    """When a ban is over, in microseconds; None is never.

    `value` is a moment (a datetime, a date, ISO 8601 text; no zone means UTC) or a length from
    `now` (a timedelta, or seconds). Raises InvalidInput when it is none of these, and when it is
    not after `now`.
    """
    if value is None:
        return None
    at = isinstance(value, str | date)
    until = from_moment(value) if at else now + _length(value, "until")
    if until <= now:
        raise InvalidInput(f"until={value!r} is not after now, {to_iso(now)}; a ban ends later")
    if until > _LAST_MOMENT:
        raise InvalidInput(f"until={value!r} is too far away; leave it out to ban for ever")
    return until


def _length(value: Any, what: str) -> int:
    """Microseconds of a timedelta or of seconds."""
    if isinstance(value, timedelta):
        return value // timedelta(microseconds=1)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        also = ", or a datetime, or text like 2024-01-31T08:30:00Z" if what == "until" else ""
        raise InvalidInput(f"{what} is {value!r}; pass seconds, or a timedelta{also}")
    return round(value * MICROSECONDS)


# -- what users hand in


def check_policies(policies: Any) -> tuple[Policy, ...]:
    """The policies of a swarm, in their order; a class that needs no arguments is instantiated.

    Raises InvalidInput for what is no policy, is not set up rightly or looks at nothing, and
    ConfigurationError for two policies of the same name.
    """
    if isinstance(policies, str | Policy) or not isinstance(policies, Iterable):
        raise InvalidInput(f"policies must be a list of policies, not {policies!r}")
    found = tuple(_instance(policy) for policy in cast("Iterable[Any]", policies))
    for policy in found:
        _check(policy)
        _check_validators(policy)
    counted = Counter(policy.name for policy in found)
    if twice := [name for name, count in counted.items() if count > 1]:
        raise ConfigurationError(
            f"several policies have the name {', '.join(map(repr, twice))}; give each its own: "
            f"{type(found[0]).__name__}(name='…')"
        )
    return found


def _instance(policy: Any) -> Policy:
    if isinstance(policy, type) and issubclass(policy, Policy):
        try:
            return policy()
        except TypeError as error:
            raise InvalidInput(
                f"the policy {policy.__name__} cannot be made without arguments; pass an "
                f"instance: {policy.__name__}(…)"
            ) from error
    if not isinstance(policy, Policy):
        raise InvalidInput(f"{policy!r} is no policy; pass instances of subclasses of Policy")
    return policy


def _check_validators(policy: Policy) -> None:
    """Refuse a policy that looks at nothing, and one that cannot be asked."""
    own = [validator for validator in _VALIDATORS if _is_own(policy, validator)]
    if not own:
        raise InvalidInput(
            f"the policy {policy.name!r} overrides neither validate_input nor validate_output, so "
            f"it looks at nothing{_meant(policy)}"
        )
    for validator in own:
        found: Any = getattr(policy, validator)
        try:
            signature(found).bind("text", "context")
        except TypeError as error:
            raise InvalidInput(
                f"{validator} of the policy {policy.name!r} cannot be called with "
                f"(text, context): {error}; write `def {validator}(self, text, context)`"
            ) from None
        except ValueError:
            continue  # one that is not written in Python


def _is_own(policy: Policy, validator: str) -> bool:
    given = getattr(policy, validator)
    return getattr(given, "__func__", None) is not getattr(Policy, validator)


def _meant(policy: Policy) -> str:
    """Which name was misspelled, if one was."""
    for name in (*vars(type(policy)), *vars(policy)):
        near = difflib.get_close_matches(name.lower(), _VALIDATORS, 1, _LIKE)
        if near:
            return f"; it has {name!r}: did you mean {near[0]!r}?"
    return ""


def _check(policy: Any) -> None:
    """Check the attributes of a policy, whoever has set them."""
    if identifier(policy.name, "the name of a policy") == EVERYTHING:
        raise InvalidInput(f"{EVERYTHING!r} stands for all policies; give this one another name")
    of = f"of the policy {policy.name!r}"
    if not isinstance(policy.ban_message, str | None) and not callable(policy.ban_message):
        raise InvalidInput(f"ban_message {of} must be text or a function of the context")
    if not isinstance(policy.auto_ban, bool):
        raise InvalidInput(f"auto_ban {of} must be True or False, not {policy.auto_ban!r}")
    length, window = policy.ban_for, policy.chunk_window
    if length is not None and not 0 < _length(length, f"ban_for {of}") <= _LONGEST:
        raise InvalidInput(
            f"ban_for {of} is {length!r}; it must be above zero and at most 100 years: leave it "
            "out to ban for ever"
        )
    if window is not None and (type(window) is not int or not 0 <= window <= MAX_WINDOW):
        raise InvalidInput(
            f"chunk_window {of} must be a number of characters, 0 to {MAX_WINDOW:,}, not {window!r}"
        )
