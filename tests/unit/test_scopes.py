"""The rules of scoped state: scopes, keys, values, owners."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tertulia.errors import InvalidInput, ScopeError
from tertulia.scopes import MAX_VALUE, SCOPES, check_key, check_scope, check_value, require_owner


def test_there_are_four_scopes() -> None:
    assert SCOPES == ("session", "user", "app", "temp")
    assert [check_scope(scope) for scope in SCOPES] == list(SCOPES)


@pytest.mark.parametrize("scope", ["global", "", "Session", None, 3, ["user"]])
def test_another_scope_is_refused_and_the_four_are_named(scope: Any) -> None:
    with pytest.raises(ScopeError, match="use one of session, user, app, temp"):
        check_scope(scope)


@pytest.mark.parametrize("key", ["a", "shopping_cart", "../x", "clé", "a b", "k" * 256])
def test_a_key_is_printable_text(key: str) -> None:
    assert check_key(key) == key


@pytest.mark.parametrize("key", ["", "k" * 257, "a\0b", "a\nb", "\ud800", None, 3, b"a"])
def test_another_key_is_refused(key: Any) -> None:
    with pytest.raises(InvalidInput, match="state key"):
        check_key(key)


def test_a_value_is_copied_deeply_and_its_bytes_say_the_same() -> None:
    mine: dict[str, Any] = {"items": [1, 2.5, None, True, "é"], "nested": {"a": [("b",)]}}
    copy, data = check_value(mine, "cart")
    assert copy == {"items": [1, 2.5, None, True, "é"], "nested": {"a": [["b"]]}}
    mine["items"].append(3)
    assert len(copy["items"]) == 5
    assert msgspec.json.decode(data) == copy


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(min_value=-(2**63), max_value=2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner) | st.dictionaries(texts, inner),
    max_leaves=10,
)


@given(json_values)
def test_every_json_value_survives(value: Any) -> None:
    copy, data = check_value(value, "k")
    assert copy == value
    assert msgspec.json.decode(data) == value


@pytest.mark.parametrize(
    "value", [float("nan"), {1: 2}, b"bytes", object(), {"a": {"b": {1, 2}}}, "\ud800"]
)
def test_a_value_that_is_no_json_is_refused_and_the_key_is_named(value: Any) -> None:
    with pytest.raises(InvalidInput, match="'cart'"):
        check_value(value, "cart")


def test_a_value_has_at_most_256_kilobytes_of_json() -> None:
    assert len(check_value("x" * (MAX_VALUE - 2), "k")[1]) == MAX_VALUE
    with pytest.raises(InvalidInput, match="'k' is 262,145 bytes; at most 262,144"):
        check_value("x" * (MAX_VALUE - 1), "k")


def test_user_scope_needs_a_user() -> None:
    with pytest.raises(ScopeError, match="user scope needs user_id="):
        require_owner("user", None)
    require_owner("user", "u-1")
    require_owner("session", None)
    require_owner("app", None)
    require_owner("temp", None)
