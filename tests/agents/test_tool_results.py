"""What tools give back, as a model reads it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum, StrEnum
from types import MappingProxyType
from typing import Any
from uuid import UUID

import msgspec
import pydantic
import pytest

from tertulia import ToolCall
from tertulia.agents.results import text_of
from tertulia.errors import ToolError


class Color(Enum):
    RED = "red"


class Word(StrEnum):
    YES = "yes"


@dataclass
class Point:
    x: int
    y: int = 0


class Item(pydantic.BaseModel):
    name: str
    count: int = 1


class Made(msgspec.Struct):
    a: int


class Holder(msgspec.Struct):
    held: Any


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ("as it is", "as it is"),
        (None, "null"),
        ({"a": [1, 2.5]}, '{"a":[1,2.5]}'),
        (Point(1, 2), '{"x":1,"y":2}'),
        (Made(1), '{"a":1}'),
        ([Item(name="tea")], '[{"name":"tea","count":1}]'),
        (Color.RED, '"red"'),
        (Word.YES, "yes"),
        (date(2026, 1, 2), '"2026-01-02"'),
        (datetime(2026, 1, 2, 3, tzinfo=UTC), '"2026-01-02T03:00:00Z"'),
        (timedelta(hours=1), '"PT1H"'),
        (UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
        (Decimal("1.10"), '"1.10"'),
        ({3}, "[3]"),
        ((1, None, True), "[1,null,true]"),
        (range(2), "[0,1]"),
        (MappingProxyType({"a": {1}}), '{"a":[1]}'),
        ((n for n in range(2)), "[0,1]"),
        (b"text", '"text"'),
        (math.nan, '"NaN"'),
        ({"made": Made(2)}, '{"made":{"a":2}}'),
        (Holder({"when": date(2026, 1, 2)}), '{"held":{"when":"2026-01-02"}}'),
        (ToolCall("c", "n"), '{"id":"c","name":"n"}'),
        (0, "0"),
        ([], "[]"),
        ("", '""'),
        (" \n", '" \\n"'),
    ],
)
def test_a_result_is_text_or_json_and_never_empty(result: Any, text: str) -> None:
    assert text_of(result) == text


ROUND: list[Any] = []
ROUND.append(ROUND)


@pytest.mark.parametrize(
    ("result", "told"),
    [
        (object(), "cannot be shown: object is no JSON type; return text"),
        ({"a": [object()]}, "object is no JSON type; return"),
        ({object(): 1}, "object is no JSON type; return"),
        (b"\xff", "invalid utf-8"),
        ("\ud800", "surrogates not allowed"),
        ({"a": "\ud800"}, "surrogates not allowed"),
        (ROUND, "Circular reference"),
        (len, "no JSON type"),
        ("x" * 300_000, "has 300000 characters, more than 256000; ask for less"),
    ],
)
def test_a_result_that_cannot_be_shown_is_an_error_that_says_why(result: Any, told: str) -> None:
    with pytest.raises(ToolError, match=r"^the result .*") as caught:
        text_of(result)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
