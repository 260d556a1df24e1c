"""How "not given" is told from None."""

from __future__ import annotations

from typing import Any


class NotGiven:
    """The class of `NOT_GIVEN`; it is false."""

    __slots__ = ()

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "NOT_GIVEN"


NOT_GIVEN = NotGiven()
"""The default of what a model decides by itself where nothing is given."""


def is_given(value: Any) -> bool:
    """Whether a value was given; None and 0 are."""
    return not isinstance(value, NotGiven)
