"""The rules of retention: what is accepted, what is due, what is forbidden."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tertulia import pruning
from tertulia.clock import DAY
from tertulia.errors import InvalidInput
from tertulia.retention import Deed, Due, Retention, due, due_at, forbids, parse, to_dict, weakens

ACTIVE = 1_700_000_000_000_000
DEEDS: tuple[Deed, ...] = ("prune", "clear", "rewind", "delete", "erase")


@pytest.mark.parametrize(
    "policy",
    [
        {"ttl_days": 2555, "auto_prune": False, "immutable": True},
        {
            "ttl_days": 30,
            "auto_prune": True,
            "prune_strategy": "sliding_window",
            "max_messages": 1000,
        },
        {"ttl_days": 730},
        {"ttl_days": 1, "auto_prune": True},
        {"idle_days": 0.5, "legal_hold": True},
        {"max_messages": 10, "prune_strategy": "keep_last_5"},
        {"ttl_days": None, "max_messages": None},
        {},
    ],
)
def test_a_policy_survives_the_way_into_a_dict_and_back(policy: dict[str, Any]) -> None:
    parsed = parse(policy)
    assert parsed == Retention(**policy)
    assert parse(to_dict(parsed)) == parsed


def test_no_policy_stays_no_policy() -> None:
    assert parse(None) is None
    assert to_dict(None) is None
    assert due_at(None, ACTIVE) is None
    assert due(None, active=0, visible=9, held=True, ended=False, now=ACTIVE) == []


def test_a_policy_that_was_parsed_before_is_taken_as_it_is() -> None:
    policy = Retention(ttl_days=3)
    assert parse(policy) is policy


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        ({"ttl": 3}, "ttl does not exist; use ttl_days, idle_days"),
        ({1: 3}, "1 does not exist"),
        ({"ttl_days": 0}, "ttl_days is 0; write a number of days above 0"),
        ({"ttl_days": -1}, "above 0"),
        ({"ttl_days": math.nan}, "above 0"),
        ({"ttl_days": math.inf}, "up to 365,000"),
        ({"ttl_days": 10**30}, "up to 365,000"),
        ({"ttl_days": "30"}, "ttl_days is '30'; write a number"),
        ({"ttl_days": True}, "ttl_days is True; write a number"),
        ({"idle_days": 0.0}, "idle_days is 0.0"),
        ({"idle_days": []}, "idle_days is []"),
        ({"max_messages": 0}, "write a whole number above 0"),
        ({"max_messages": 1.5}, "max_messages is 1.5; write a whole number"),
        ({"max_messages": 10**10}, "up to 1,000,000,000"),
        ({"auto_prune": "yes"}, "auto_prune is 'yes'; write True or False"),
        ({"immutable": 1}, "immutable is 1; write True or False"),
        ({"legal_hold": None}, "legal_hold is None"),
        ({"max_messages": 5, "prune_strategy": "magic"}, "use sliding_window, keep_last_<N>"),
        ({"max_messages": 5, "prune_strategy": "keep_last_0"}, "does not exist"),
        ({"max_messages": 5, "prune_strategy": 5}, "prune_strategy 5 does not exist"),
        ({"max_messages": 5, "prune_strategy": ["x"]}, "does not exist"),
        ({"max_messages": 5, "prune_strategy": "keep_important"}, "needs a model"),
        ({"max_messages": 1, "prune_strategy": "summarize_old"}, "max_messages of 2 or more"),
        ({"max_messages": 5, "prune_strategy": "keep_last_6"}, "keeps more than max_messages=5"),
        ({"prune_strategy": "sliding_window"}, "add max_messages"),
        ({"immutable": True, "max_messages": 5}, "leave one of them out"),
        ({"auto_prune": True}, "add ttl_days, idle_days or max_messages"),
        ([("ttl_days", 3)], "write a mapping like"),
    ],
)
def test_an_impossible_policy_is_refused_and_the_text_says_what_to_write(
    policy: Any, says: str
) -> None:
    with pytest.raises(InvalidInput, match=r"retention") as refused:
        parse(policy)
    assert says in str(refused.value)


def test_a_policy_made_by_hand_is_checked_as_well() -> None:
    with pytest.raises(InvalidInput):
        Retention(ttl_days=-1)


@pytest.mark.parametrize(
    ("strategy", "options"),
    [
        (None, {"window_size": 9}),
        ("sliding_window", {"window_size": 9}),
        ("keep_last_n", {"n": 9}),
        ("keep_last_7", {}),
    ],
)
def test_every_strategy_that_a_policy_takes_is_one_that_pruning_knows(
    strategy: str | None, options: dict[str, int]
) -> None:
    policy = Retention(max_messages=9, prune_strategy=strategy)
    assert pruning.parse(strategy or "sliding_window", **options).keep == policy.keep


def test_half_stays_where_the_rest_is_to_be_summarised() -> None:
    policy = Retention(max_messages=9, prune_strategy="summarize_old")
    assert policy.summarizes
    assert policy.keep == 4
    assert not Retention(max_messages=9).summarizes


def test_without_max_messages_there_is_nothing_to_keep() -> None:
    assert Retention(ttl_days=1).keep is None


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ({"immutable": True}, {}, "cannot be taken away"),
        ({"immutable": True}, {"immutable": True, "ttl_days": 5}, "ttl_days cannot be added"),
        (
            {"immutable": True, "ttl_days": 5},
            {"immutable": True, "ttl_days": 4.5},
            "ttl_days=5 cannot become 4.5",
        ),
        ({"legal_hold": True}, {"ttl_days": 5}, "release_hold()"),
        ({"legal_hold": True, "immutable": True}, {"immutable": True}, "release_hold()"),
    ],
)
def test_a_new_policy_cannot_weaken_what_protects(
    old: dict[str, Any], new: dict[str, Any], says: str
) -> None:
    assert says in (weakens(parse(old), parse(new)) or "")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (None, {"immutable": True}),
        ({"immutable": True, "legal_hold": True}, None),
        ({"ttl_days": 5}, {"ttl_days": 1, "auto_prune": True}),
        ({"ttl_days": 5}, {"ttl_days": 5, "immutable": True}),
        ({"immutable": True, "ttl_days": 5}, {"immutable": True, "ttl_days": 5}),
        ({"immutable": True, "ttl_days": 5}, {"immutable": True, "ttl_days": 6}),
        ({"immutable": True, "ttl_days": 5}, {"immutable": True}),
        ({"immutable": True}, {"immutable": True, "legal_hold": True}),
    ],
)
def test_a_new_policy_may_be_stronger_or_other_where_nothing_protects(
    old: dict[str, Any] | None, new: dict[str, Any] | None
) -> None:
    assert weakens(parse(old), parse(new)) is None


@pytest.mark.parametrize(
    ("policy", "days"),
    [
        ({"ttl_days": 3}, 3),
        ({"idle_days": 2}, 2),
        ({"ttl_days": 3, "idle_days": 2}, 2),
        ({"ttl_days": 2, "idle_days": 3}, 2),
        ({"max_messages": 3}, None),
    ],
)
def test_the_earlier_of_ttl_and_idle_is_due_and_both_run_from_the_last_activity(
    policy: dict[str, Any], days: int | None
) -> None:
    expected = None if days is None else ACTIVE + days * DAY
    assert due_at(parse(policy), ACTIVE) == expected


def test_a_session_that_ended_is_not_due_to_be_ended() -> None:
    policy = Retention(idle_days=1)
    late = ACTIVE + 2 * DAY
    assert due_at(policy, ACTIVE, ended=True) is None
    assert due(policy, active=ACTIVE, visible=1, held=False, ended=True, now=late) == []


def test_a_session_with_too_many_messages_is_due_at_once() -> None:
    policy = Retention(max_messages=3, ttl_days=1)
    assert due_at(policy, ACTIVE, visible=4) == ACTIVE
    assert due_at(policy, ACTIVE, visible=3) == ACTIVE + DAY


def actions(found: list[Due]) -> list[tuple[str, bool]]:
    return [(entry.action, entry.acts) for entry in found]


TTL, IDLE, MOST = {"ttl_days": 3}, {"idle_days": 1}, {"max_messages": 5}
AUTO, HOLD, FIXED = {"auto_prune": True}, {"legal_hold": True}, {"immutable": True}


@pytest.mark.parametrize(
    ("policy", "held", "days", "visible", "expected"),
    [
        (TTL | AUTO, False, 2, 1, []),
        (TTL | AUTO, False, 3, 1, [("delete", True)]),
        (TTL, False, 3, 1, [("delete", False)]),
        (TTL | AUTO, True, 3, 1, [("delete", False)]),
        (TTL | AUTO | HOLD, False, 3, 1, [("delete", False)]),
        (TTL | FIXED, False, 3, 1, [("delete", False)]),
        (TTL | FIXED | AUTO, False, 2, 1, []),
        (TTL | FIXED | AUTO, False, 3, 1, [("delete", True)]),
        (IDLE | AUTO, False, 1, 1, [("end", True)]),
        (IDLE, False, 1, 1, [("end", False)]),
        (MOST, False, 0, 5, []),
        (MOST, False, 0, 6, [("prune", False)]),
        (MOST | AUTO, False, 0, 6, [("prune", True)]),
        (MOST | AUTO, True, 0, 6, [("prune", False)]),
        (MOST | IDLE | AUTO, False, 1, 6, [("end", True), ("prune", True)]),
        (MOST | IDLE | TTL | AUTO, False, 3, 6, [("delete", True)]),
    ],
)
def test_a_sweep_acts_with_auto_prune_and_otherwise_only_lists(
    policy: dict[str, Any],
    held: bool,
    days: int,
    visible: int,
    expected: list[tuple[str, bool]],
) -> None:
    now = ACTIVE + days * DAY
    found = due(parse(policy), active=ACTIVE, visible=visible, held=held, ended=False, now=now)
    assert actions(found) == expected


def test_the_reason_names_the_setting_the_last_activity_and_why_nothing_happens() -> None:
    late = ACTIVE + 9 * DAY
    [entry] = due(
        Retention(ttl_days=3), active=ACTIVE, visible=1, held=False, ended=False, now=late
    )
    assert entry.reason == (
        "ttl_days=3 are over, the last activity was at 2023-11-14T22:13:20.000000Z; "
        "auto_prune is off"
    )
    [entry] = due(
        Retention(max_messages=3), active=ACTIVE, visible=4, held=True, ended=False, now=late
    )
    assert entry.reason == "4 messages are more than max_messages=3; a legal hold keeps it"


@given(
    ttl=st.floats(min_value=0.001, max_value=365_000),
    idle=st.none() | st.floats(min_value=0.001, max_value=365_000),
    active=st.integers(min_value=0, max_value=2**52),
)
def test_something_is_due_from_the_moment_that_due_at_gives_and_not_before(
    ttl: float, idle: float | None, active: int
) -> None:
    policy = Retention(ttl_days=ttl, idle_days=idle)
    moment = due_at(policy, active)
    assert moment is not None
    facts: dict[str, Any] = {"active": active, "visible": 0, "held": False, "ended": False}
    assert due(policy, now=moment, **facts)
    assert not due(policy, now=moment - 1, **facts)


@pytest.mark.parametrize("deed", DEEDS)
def test_a_legal_hold_refuses_everything_even_the_erasure_of_a_person(deed: Deed) -> None:
    late = ACTIVE + 99 * DAY
    assert "legal hold" in (forbids(None, True, deed, active=ACTIVE, now=late) or "")
    held = Retention(legal_hold=True, ttl_days=1)
    assert "legal hold" in (forbids(held, False, deed, active=ACTIVE, now=late) or "")


@pytest.mark.parametrize("deed", DEEDS)
def test_without_immutable_and_hold_everything_is_allowed(deed: Deed) -> None:
    assert forbids(None, False, deed, active=ACTIVE, now=ACTIVE) is None
    assert forbids(Retention(ttl_days=9), False, deed, active=ACTIVE, now=ACTIVE) is None


@pytest.mark.parametrize("deed", DEEDS)
def test_immutable_refuses_all_but_the_erasure_of_a_person(deed: Deed) -> None:
    for policy in (Retention(immutable=True), Retention(immutable=True, ttl_days=5)):
        reason = forbids(policy, False, deed, active=ACTIVE, now=ACTIVE + 4 * DAY)
        assert (reason is None) == (deed == "erase")


@pytest.mark.parametrize("deed", DEEDS)
def test_an_immutable_session_may_be_deleted_when_its_days_are_over_but_never_changed(
    deed: Deed,
) -> None:
    policy = Retention(immutable=True, ttl_days=5)
    reason = forbids(policy, False, deed, active=ACTIVE, now=ACTIVE + 5 * DAY)
    assert (reason is None) == (deed in ("delete", "erase"))
