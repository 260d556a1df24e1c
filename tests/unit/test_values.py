"""What may be stored: JSON values and ids."""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tertulia.errors import InvalidInput
from tertulia.values import MAX_DEPTH, MAX_ID, identifier, json_value


class Colour(StrEnum):
    RED = "red"


class Size(IntEnum):
    LARGE = 3


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=("Cs",))),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(JSON)
def test_a_json_value_comes_back_equal(value: Any) -> None:
    assert json_value(value, "it") == value


def test_a_copy_shares_nothing() -> None:
    inner: list[int] = [1]
    value: dict[str, Any] = {"a": {"b": inner}}
    copy = json_value(value, "it")
    inner.append(2)
    assert copy == {"a": {"b": [1]}}


def test_tuples_become_lists_and_enums_their_values() -> None:
    assert json_value((1, (2,)), "it") == [1, [2]]
    for value, plain in ((Colour.RED, "red"), (Size.LARGE, 3)):
        result = json_value(value, "it")
        assert result == plain
        assert type(result) is type(plain)
    assert json_value(True, "it") is True


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (float("nan"), "it is nan"),
        (float("-inf"), "it is -inf"),
        ({"a": [1, {"b": b"x"}]}, r"it\['a'\]\[1\]\['b'\] is a bytes"),
        ({1: 2}, "it has the key 1"),
        ({"a": {1, 2}}, r"it\['a'\] is a set"),
        (object(), "it is a object"),
        ([object], r"it\[0\] is a type"),
    ],
)
def test_what_json_cannot_carry_is_refused_and_its_place_is_named(value: Any, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        json_value(value, "it")


def test_what_is_nested_too_deep_is_refused_and_a_circle_is_not_followed() -> None:
    value: Any = 1
    for _ in range(MAX_DEPTH + 2):
        value = [value]
    with pytest.raises(InvalidInput, match="nested"):
        json_value(value, "it")
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(InvalidInput, match="nested"):
        json_value(circle, "it")


@pytest.mark.parametrize("name", ["a", "a b", "ñ", "../x", "x" * MAX_ID, "%00", "日本"])
def test_printable_text_is_an_id(name: str) -> None:
    assert identifier(name, "the id") == name


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", "must not be empty"),
        ("x" * (MAX_ID + 1), "at most 512"),
        ("a\0b", "control characters"),
        ("a\n", "control characters"),
        ("\x7f", "control characters"),
        ("\ud800", "broken text"),
        (5, "must be text, not int"),
        (None, "must be text"),
        (b"x", "must be text"),
    ],
)
def test_an_id_that_cannot_be_is_refused(name: Any, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        identifier(name, "the id")
