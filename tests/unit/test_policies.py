"""What a policy may be, and the rule of bans."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tertulia.clock import DAY, MICROSECONDS, from_moment
from tertulia.errors import ConfigurationError, InvalidInput
from tertulia.policies import (
    BAN_MESSAGE,
    Ban,
    Policy,
    PolicyContext,
    Refusal,
    added,
    ban_of,
    check_policies,
    is_banned,
    lifted,
    standing,
    until_of,
)

NOW = from_moment("2026-01-01T12:00:00Z")


class NoCompetitors(Policy):
    async def validate_input(self, message: str, context: PolicyContext) -> bool:
        return "acme" not in message


class Polite(Policy):
    name = "polite"

    def validate_output(self, text: str, context: PolicyContext) -> bool | Refusal:
        return self.refuse("rude") if "fool" in text else True


class Words(Policy):
    """It has an `__init__` of its own that calls no other."""

    def __init__(self, words: list[str]) -> None:
        self.words = words

    def validate_input(self, message: str, context: PolicyContext) -> bool:
        return not any(word in message for word in self.words)


@dataclass
class Long(Policy):
    most: int

    def validate_input(self, message: str, context: PolicyContext) -> bool:
        return len(message) <= self.most


# -- what a policy is


def test_a_policy_is_named_like_its_class_where_the_class_says_nothing() -> None:
    class Politest(Polite):
        pass

    assert (NoCompetitors().name, Polite().name, Politest().name) == (
        "NoCompetitors",
        "polite",
        "Politest",
    )
    assert Polite(name="manners").name == "manners"


def test_a_subclass_that_calls_no_init_has_the_defaults() -> None:
    for policy in (Words(["x"]), Long(3)):
        assert check_policies([policy]) == (policy,)
        said = (policy.ban_message, policy.auto_ban, policy.ban_for, policy.chunk_window)
        assert said == (BAN_MESSAGE, False, None, None)
        assert policy.name == type(policy).__name__


def test_a_parameter_is_for_one_instance_only() -> None:
    policy = Polite(auto_ban=True, ban_message="no", ban_for=60, chunk_window=20)
    said = (policy.auto_ban, policy.ban_message, policy.ban_for, policy.chunk_window)
    assert said == (True, "no", 60, 20)
    assert (Polite().auto_ban, Polite().chunk_window) == (False, None)


def test_what_a_class_sets_stays_where_the_parameters_say_nothing() -> None:
    class Strict(Policy):
        auto_ban = True
        ban_for = timedelta(days=1)

    assert (Strict().auto_ban, Strict().ban_for) == (True, timedelta(days=1))
    assert Strict(auto_ban=False).auto_ban is False


def test_a_policy_knows_what_it_looks_at() -> None:
    assert [(p.checks_input, p.checks_output) for p in (NoCompetitors(), Polite(), Policy())] == [
        (True, False),
        (False, True),
        (False, False),
    ]


async def test_a_validator_that_is_not_overridden_accepts_and_can_be_awaited() -> None:
    class Careful(Policy):
        async def validate_input(self, message: str, context: PolicyContext) -> bool:
            accepted: Any = super().validate_input(message, context)
            return bool(await accepted) and "x" not in message

    context: Any = None
    assert await Careful().validate_input("a", context)
    assert not await Careful().validate_input("x", context)


def test_a_refusal_is_false_and_says_why() -> None:
    refusal = Polite().refuse("rude")
    assert not refusal
    assert refusal.reason == "rude"
    wrong: Any = 3
    with pytest.raises(InvalidInput, match="reason of a refusal must be text"):
        Polite().refuse(wrong)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"name": ""}, "must not be empty"),
        ({"name": "*"}, "stands for all policies"),
        ({"name": 3}, "must be text"),
        ({"auto_ban": "yes"}, "auto_ban of the policy 'polite' must be True or False"),
        ({"ban_message": 3}, "ban_message of the policy 'polite' must be text or a function"),
        ({"ban_for": 0}, "must be above zero"),
        ({"ban_for": timedelta(seconds=-1)}, "must be above zero"),
        ({"ban_for": "tomorrow"}, "pass seconds, or a timedelta$"),
        ({"ban_for": float("nan")}, "pass seconds"),
        ({"ban_for": True}, "pass seconds"),
        ({"ban_for": timedelta(days=40_000)}, "at most 100 years"),
        ({"chunk_window": -1}, "chunk_window of the policy 'polite' must be a number of char"),
        ({"chunk_window": 1.5}, "must be a number of characters"),
        ({"chunk_window": True}, "must be a number of characters"),
        ({"chunk_window": 100_001}, "0 to 100,000"),
    ],
)
def test_a_parameter_that_cannot_be_is_refused(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        Polite(**wrong)


def test_what_a_class_or_an_init_of_its_own_sets_is_checked_by_the_swarm() -> None:
    class Windy(Policy):
        chunk_window = -3

        def __init__(self) -> None:
            pass

        def validate_output(self, text: str, context: PolicyContext) -> bool:
            return True

    with pytest.raises(InvalidInput, match="chunk_window of the policy 'Windy'"):
        check_policies([Windy()])


# -- a list of policies


def test_policies_keep_their_order_and_classes_are_instantiated() -> None:
    manners = Polite(name="manners")
    found = check_policies(policy for policy in [NoCompetitors, manners, Polite])
    assert [policy.name for policy in found] == ["NoCompetitors", "manners", "polite"]
    assert found[1] is manners
    assert check_policies([]) == ()


def test_names_that_come_twice_are_listed() -> None:
    with pytest.raises(ConfigurationError, match=r"have the name 'polite', 'Words'; give each"):
        check_policies([Polite, Words([]), Polite(), Words([]), NoCompetitors])


@pytest.mark.parametrize("wrong", [None, 3, "polite", Polite(), Polite])
def test_what_is_no_list_of_policies_is_refused(wrong: Any) -> None:
    with pytest.raises(InvalidInput, match="policies must be a list"):
        check_policies(wrong)


@pytest.mark.parametrize("wrong", [None, "polite", len, object, int])
def test_what_is_no_policy_is_refused(wrong: Any) -> None:
    with pytest.raises(InvalidInput, match="is no policy"):
        check_policies([wrong])


def test_a_class_that_needs_arguments_is_refused_with_what_to_write() -> None:
    with pytest.raises(InvalidInput, match=r"cannot be made without arguments.*Words\(…\)"):
        check_policies([Words])


class Misspelled(Policy):
    def validate_inptu(self, message: str, context: PolicyContext) -> bool:
        return False


class OfTheOtherLanguage(Policy):
    def validateOutput(self, text: str, context: PolicyContext) -> bool:  # noqa: N802
        return False


class LooksAtNothing(Policy):
    def check(self, message: str) -> bool:
        return False


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (Misspelled, r"nothing; it has 'validate_inptu': did you mean 'validate_input'\?$"),
        (OfTheOtherLanguage, r"it has 'validateOutput': did you mean 'validate_output'\?$"),
        (LooksAtNothing, r"neither validate_input nor validate_output, so it looks at nothing$"),
        (Policy, r"the policy 'Policy' overrides neither"),
    ],
)
def test_a_policy_that_looks_at_nothing_is_refused_with_what_may_have_been_meant(
    wrong: type[Policy], told: str
) -> None:
    with pytest.raises(InvalidInput, match=told):
        check_policies([wrong])


class WithoutContext(Policy):
    def validate_input(self, message: str) -> bool:  # pyright: ignore[reportIncompatibleMethodOverride]
        return True


class WithMore(Policy):
    async def validate_output(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, text: str, context: PolicyContext, client: str
    ) -> bool:
        return True


class NoFunction(Policy):
    validate_input: Any = "yes"


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (WithoutContext, r"validate_input of the policy 'WithoutContext' cannot be called with \("),
        (WithMore, r"'client'; write `def validate_output\(self, text, context\)`"),
        (NoFunction, r"'yes' is not a callable object"),
    ],
)
def test_a_validator_that_cannot_be_asked_is_refused(wrong: type[Policy], told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        check_policies([wrong])


def test_a_validator_may_be_any_callable_of_a_text_and_a_context() -> None:
    class Given(Policy):
        validate_input: Any = staticmethod(lambda *given: True)

        def validate_output(self, text: str, *rest: Any, strict: bool = True) -> bool:
            return True

    [policy] = check_policies([Given])
    assert (policy.checks_input, policy.checks_output) == (True, True)


# -- until when


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (60, 60),
        (0.5, 0.5),
        (timedelta(hours=1), 3600),
        (datetime(2026, 1, 1, 13), 3600),  # noqa: DTZ001
        (datetime(2026, 1, 1, 14, tzinfo=UTC), 7200),
        ("2026-01-01T12:00:01Z", 1),
        (date(2026, 1, 2), 12 * 3600),
    ],
)
def test_a_ban_ends_at_a_moment_or_after_a_length(value: Any, seconds: float) -> None:
    assert until_of(value, NOW) == NOW + seconds * MICROSECONDS


def test_a_ban_without_an_end_is_for_ever() -> None:
    assert until_of(None, NOW) is None
    assert Ban("p", NOW).stands(NOW + 1_000_000 * DAY)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (0, "not after now"),
        (-1, "not after now"),
        (timedelta(), "not after now"),
        ("2026-01-01T12:00:00Z", "not after now, 2026-01-01T12:00:00"),
        (date(2026, 1, 1), "not after now"),
        (1e300, "too far away"),
        (timedelta.max, "too far away"),
        (True, "pass seconds, or a timedelta, or a datetime"),
        (float("inf"), "pass seconds"),
        (float("nan"), "pass seconds"),
        ("tomorrow", "is no date"),
        ([], "pass seconds"),
    ],
)
def test_an_end_that_cannot_be_is_refused(wrong: Any, told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        until_of(wrong, NOW)


# -- bans


def test_a_ban_is_over_at_the_moment_of_its_end() -> None:
    ban = Ban("p", NOW, NOW + 10)
    assert [ban.stands(NOW + at) for at in (0, 9, 10, 11)] == [True, True, False, False]
    assert standing([ban], NOW + 9) == (ban,)
    assert standing([ban], NOW + 10) == ()


def test_the_star_is_a_ban_for_every_policy() -> None:
    bans = (Ban("*", NOW),)
    assert is_banned(bans, "p", NOW)
    assert is_banned(bans, "*", NOW)
    assert ban_of(bans, "p", NOW) is None
    assert not is_banned((Ban("p", NOW),), "*", NOW)
    assert not is_banned((Ban("p", NOW),), "q", NOW)


def test_a_ban_that_is_repeated_changes_nothing() -> None:
    bans, changed = added((), [Ban("p", 1, 100, "why")], 1)
    assert changed == list(bans)
    assert added(bans, [Ban("p", 2, 100, "again")], 2) == (bans, [])
    assert added(bans, [Ban("p", 2, 50)], 2) == (bans, [])


def test_a_ban_that_lasts_longer_keeps_its_beginning() -> None:
    bans, changed = added((Ban("p", 1, 100, "why"),), [Ban("p", 5, None)], 5)
    assert bans == (Ban("p", 1, None, "why"),)
    assert changed == list(bans)
    assert added(bans, [Ban("p", 6, 1_000)], 6) == (bans, [])


def test_a_ban_that_is_over_begins_anew_and_goes_with_the_next_change() -> None:
    bans, changed = added((Ban("p", 1, 100), Ban("q", 1, 100)), [Ban("p", 100, 200)], 100)
    assert bans == (Ban("p", 100, 200),)
    assert changed == [Ban("p", 100, 200)]


def test_bans_are_lifted_by_name_or_all() -> None:
    bans = (Ban("p", 1), Ban("q", 1, 50), Ban("*", 1), Ban("old", 1, 2))
    assert lifted(bans, ["p", "old", "nobody"], 5) == (
        (Ban("q", 1, 50), Ban("*", 1)),
        [Ban("p", 1)],
    )
    assert lifted(bans, None, 5) == ((), [Ban("p", 1), Ban("q", 1, 50), Ban("*", 1)])
    assert lifted(bans, [], 5) == (bans[:3], [])


names = st.sampled_from(["p", "q", "*"])
ends = st.none() | st.integers(1, 30)
some_bans = st.lists(st.builds(Ban, names, st.just(0), ends), max_size=6)


@given(some_bans, some_bans, st.integers(0, 30), st.integers(0, 30))
def test_adding_bans_frees_nobody_and_bans_whom_it_should(
    first: list[Ban], second: list[Ban], now: int, later: int
) -> None:
    before, _ = added((), first, now)
    after, changed = added(before, second, now)
    at = max(now, later)
    for name in ("p", "q", "*"):
        either = ban_of([*first, *second], name, at) is not None
        assert (ban_of(after, name, at) is not None) == either
    assert len({ban.policy for ban in after}) == len(after)
    assert {ban.policy for ban in changed} == {ban.policy for ban in set(after) - set(before)}
