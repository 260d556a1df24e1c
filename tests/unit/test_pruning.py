"""The rules of pruning: strategies, cuts between turns, holes, the report."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tertulia.errors import InvalidInput
from tertulia.pruning import PruneReport, Spent, Strategy, cut, holes, parse, unjudged


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("keep_last_50", {}, Strategy("keep_last", 50)),
        ("keep_last_1", {}, Strategy("keep_last", 1)),
        ("keep_last_n", {"n": 7}, Strategy("keep_last", 7)),
        ("sliding_window", {"window_size": 100}, Strategy("keep_last", 100)),
        ("summarize_old", {}, Strategy("summarize_old", 50)),
        ("summarize_old", {"threshold": 20}, Strategy("summarize_old", 20)),
        ("keep_important", {}, Strategy("keep_important", 10)),
        ("keep_important", {"n": 3}, Strategy("keep_important", 3)),
    ],
)
def test_every_strategy_is_known_by_its_name(
    name: str, options: dict[str, int], expected: Strategy
) -> None:
    assert parse(name, **options) == expected


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("newest", {}, "use one of keep_last_<N>, keep_last_n (n=), sliding_window"),
        ("", {}, "does not exist"),
        ("keep_last_", {}, "does not exist"),
        ("keep_last_-1", {}, "does not exist"),
        ("keep_last_\N{ARABIC-INDIC DIGIT THREE}", {}, "does not exist"),
        (None, {}, "is text, not NoneType"),
        (50, {}, "is text, not int"),
        ("keep_last_0", {}, "hide all by clear()"),
        ("keep_last_n", {"n": 0}, "hide all by clear()"),
        ("keep_last_n", {"n": -1}, "keep at least 1"),
        ("keep_last_n", {"n": "5"}, "a whole number"),
        ("keep_last_n", {"n": True}, "a whole number"),
        ("keep_last_n", {"n": 2.0}, "a whole number"),
        ("keep_last_99999999999", {}, "at most 1,000,000,000"),
        ("keep_last_" + "9" * 5000, {}, "does not exist"),
        ("keep_last_n", {}, "needs n=; write for example n=50"),
        ("sliding_window", {}, "needs window_size="),
        ("sliding_window", {"n": 5}, "does not take n=; it takes window_size="),
        ("keep_last_5", {"n": 5}, "its number is in its name"),
        ("summarize_old", {"window_size": 5}, "it takes threshold="),
        ("summarize_old", {"threshold": 0}, "threshold is 0"),
        ("keep_important", {"threshold": 5}, "it takes n="),
    ],
)
def test_a_wrong_strategy_is_refused_and_the_text_says_what_to_write(
    name: Any, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse(name, **options)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("turns", "keep", "expected"),
    [
        ([], 3, None),
        ([1, 2, 3], 3, None),
        ([1, 2, 3], 5, None),
        ([1, 2, 3, 4], 3, 1),
        ([1, 5, 9, 13], 1, 12),
        ([1, 1, 5, 5, 9, 9], 4, 4),
        ([1, 1, 5, 5, 9, 9], 3, 8),
        ([1, 1, 5, 5, 9, 9], 2, 8),
        ([1, 1, 5, 5, 9, 9], 1, 8),
        ([1, 1, 5, 5, 5, 5], 2, 4),
        ([5, 5, 5, 5], 2, None),
    ],
)
def test_a_cut_lies_between_turns_and_leaves_at_most_so_many_or_the_newest_turn(
    turns: list[int], keep: int, expected: int | None
) -> None:
    assert cut(turns, keep) == expected


def test_where_only_the_newest_turn_was_given_and_more_is_there_the_cut_lies_before_it() -> None:
    assert cut([5, 5, 5], 2, more=True) == 4


turn_lengths = st.lists(st.integers(min_value=1, max_value=5), max_size=12)


def laid_out(lengths: list[int]) -> tuple[list[int], list[int]]:
    """Turns and positions of messages: a turn opens, says its messages, and closes."""
    turns: list[int] = []
    seqs: list[int] = []
    position = 1
    for length in lengths:
        turns += [position] * length
        seqs += range(position + 1, position + 1 + length)
        position += length + 2
    return turns, seqs


@given(turn_lengths, st.integers(min_value=1, max_value=30))
def test_a_cut_parts_no_turn_and_hides_no_more_than_it_must(lengths: list[int], keep: int) -> None:
    turns, seqs = laid_out(lengths)
    position = cut(turns, keep)
    if position is None:
        assert len(turns) <= keep or len(set(turns)) == 1
        return
    kept = [turn for turn, seq in zip(turns, seqs, strict=True) if seq > position]
    hidden = [turn for turn, seq in zip(turns, seqs, strict=True) if seq <= position]
    assert kept
    assert hidden
    assert not set(kept) & set(hidden)
    assert len(kept) <= keep or len(set(kept)) == 1
    assert len(kept) + hidden.count(hidden[-1]) > keep


@given(turn_lengths, st.integers(min_value=1, max_value=30))
def test_the_newest_messages_are_enough_to_find_the_cut(lengths: list[int], keep: int) -> None:
    turns, _ = laid_out(lengths)
    newest = turns[-(keep + 1) :]
    found = cut(newest, keep, more=len(newest) < len(turns))
    expected = cut(turns, keep)
    assert found == expected or (expected is None and found == turns[0] - 1)


def test_holes_leave_the_important_turns_and_the_newest_messages() -> None:
    turns = [1, 1, 5, 5, 9, 9, 13, 13, 17]
    seqs = [2, 3, 6, 7, 10, 11, 14, 15, 18]
    important = [False, False, False, True, False, False, False, False, False]
    assert holes(turns, seqs, important, 1) == [(0, 3), (8, 15)]
    assert holes(turns, seqs, important, 2) == [(0, 3), (8, 11)]
    assert holes(turns, seqs, important, 9) == []
    assert holes(turns, seqs, [True] * 9, 1) == []
    assert holes([], [], [], 1) == []


@given(st.data(), turn_lengths, st.integers(min_value=1, max_value=10))
def test_holes_hide_whole_turns_without_anything_important_and_all_of_those(
    data: st.DataObject, lengths: list[int], keep: int
) -> None:
    turns, seqs = laid_out(lengths)
    important = data.draw(st.lists(st.booleans(), min_size=len(turns), max_size=len(turns)))
    found = holes(turns, seqs, important, keep)
    assert all(high < low for (_, high), (low, _) in pairwise(found))
    hidden = [any(low < seq <= high for low, high in found) for seq in seqs]
    newest = len(turns) - keep
    for turn in set(turns):
        mine = [i for i, other in enumerate(turns) if other == turn]
        stays = any(important[i] or i >= newest for i in mine)
        assert [hidden[i] for i in mine] == [not stays] * len(mine)


def test_a_report_is_true_when_something_was_hidden() -> None:
    nothing = PruneReport(strategy="keep_last_5", hidden=0, kept=3, before=3, after=3)
    something = PruneReport(strategy="keep_last_5", hidden=2, kept=5, before=7, after=5, position=4)
    assert not nothing
    assert something


@pytest.mark.parametrize(
    ("turns", "keep", "judged"),
    [
        ([], 2, 0),
        ([1, 2, 3], 5, 0),
        ([1, 2, 3], 1, 2),
        ([1, 1, 2, 2, 2], 2, 2),
        ([1, 1, 1], 1, 0),
        ([1, 2, 2], 2, 1),
    ],
)
def test_turns_that_stay_in_any_case_are_not_judged(
    turns: list[int], keep: int, judged: int
) -> None:
    assert unjudged(turns, keep) == judged


def test_what_was_spent_adds_up_and_says_nothing_where_nobody_was_asked() -> None:
    assert Spent("m").body() == {}
    spent = Spent().plus(Spent("m", 1, 10, 2)).plus(Spent("m", 1, 5, 1))
    assert spent.body() == {
        "model": "m",
        "usage": {"requests": 2, "input_tokens": 15, "output_tokens": 3},
    }
