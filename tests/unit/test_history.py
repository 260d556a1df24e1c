"""Where it is safe to cut a history."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tertulia.errors import InvalidInput
from tertulia.history import (
    Segment,
    check_limit,
    check_position,
    subtract,
    whole_end,
    whole_start,
)
from tertulia.messages import Message

A, B = Message.user("a"), Message.user("b")
CALLS = Message.assistant(tool_calls=[{"id": "x", "name": "f"}, {"id": "y", "name": "f"}])
X, Y = Message.tool("done", "x"), Message.tool("done", "y")


@pytest.mark.parametrize("wrong", [-1, True, False, 1.0, "1", [1]])
def test_a_limit_is_a_whole_number_that_is_not_negative(wrong: Any) -> None:
    with pytest.raises(InvalidInput, match="limit must be a whole number"):
        check_limit(wrong)
    with pytest.raises(InvalidInput, match="since must be"):
        check_position(wrong, "since")


def test_no_limit_and_zero_are_limits() -> None:
    assert check_limit(None) is None
    assert check_limit(0) == 0
    assert check_position(5, "at") == 5


@pytest.mark.parametrize(
    ("gaps", "floor", "expected"),
    [
        ([], 0, [(0, 10)]),
        ([(2, 4)], 0, [(4, 10), (0, 2)]),
        ([(0, 10)], 0, []),
        ([(8, 12)], 0, [(0, 8)]),
        ([(-1, 3)], 0, [(3, 10)]),
        ([(2, 4), (3, 6)], 0, [(6, 10), (0, 2)]),
        ([(6, 8), (1, 2)], 0, [(8, 10), (2, 6), (0, 1)]),
        ([(2, 4)], 3, [(4, 10)]),
        ([], 10, []),
        ([(20, 30)], 5, [(5, 10)]),
    ],
)
def test_gaps_are_taken_out_newest_part_first(
    gaps: list[tuple[int, int]], floor: int, expected: list[tuple[int, int]]
) -> None:
    parts = subtract(Segment(1, 0, 10), gaps, floor)
    assert [(part.low, part.high) for part in parts] == expected


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30))), st.integers(0, 30))
def test_what_is_left_is_exactly_what_no_gap_has(gaps: list[tuple[int, int]], floor: int) -> None:
    gaps = [(min(gap), max(gap)) for gap in gaps if gap[0] != gap[1]]
    parts = subtract(Segment(1, 0, 30), gaps, floor)
    left = [seq for part in reversed(parts) for seq in range(part.low + 1, part.high + 1)]
    expected = [
        seq for seq in range(floor + 1, 31) if not any(low < seq <= high for low, high in gaps)
    ]
    assert left == expected


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([], []),
        ([A, B], [A, B]),
        ([X, Y, B], [B]),
        ([Y], []),
        ([CALLS, X, Y], [CALLS, X, Y]),
    ],
)
def test_a_history_never_starts_with_a_result(
    messages: list[Message], expected: list[Message]
) -> None:
    assert whole_start(messages) == expected


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([], []),
        ([A], [A]),
        ([A, CALLS], [A]),
        ([A, CALLS, X], [A]),
        ([A, CALLS, X, Y], [A, CALLS, X, Y]),
        ([A, CALLS, Y, X, B], [A, CALLS, Y, X, B]),
    ],
)
def test_a_page_never_ends_inside_a_group(messages: list[Message], expected: list[Message]) -> None:
    assert whole_end(messages) == expected
