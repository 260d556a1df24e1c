"""What a model is told of a tool, and what becomes of the arguments that it sends."""

# The hints of this module are values, as in most applications; see `postponed_tools` for text.
import subprocess
import sys
import typing
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum, IntEnum
from functools import partial
from typing import Annotated, Any, Literal
from uuid import UUID

import pydantic
import pytest
from pydantic import Field
from tests.agents import postponed_tools
from typing_extensions import TypedDict

from tertulia import Session, tool
from tertulia.agents import RunContext
from tertulia.agents.schemas import shape_of
from tertulia.agents.tools import prepare, tools_of
from tertulia.errors import InvalidInput

CONTEXT = typing.cast("RunContext", object())


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Box(TypedDict):
    width: int


@dataclass
class Point:
    x: int
    y: int = 0


class Item(pydantic.BaseModel):
    """Something to buy."""

    name: str
    count: int = Field(default=1, ge=1)


class Basket(pydantic.BaseModel):
    items: list[Item]


class Exact(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True)
    day: date


def schema_of(function: Callable[..., Any]) -> dict[str, Any]:
    return shape_of(function, "test").parameters


def accepted(function: Callable[..., Any], given: dict[str, Any]) -> dict[str, Any]:
    """The arguments as the function would get them by name."""
    positional, named = shape_of(function, "test").arguments(given, CONTEXT)
    assert positional == []
    return named


def refused(function: Callable[..., Any], given: dict[str, Any]) -> str:
    with pytest.raises(ValueError, match=r"\w") as caught:
        shape_of(function, "test").arguments(given, CONTEXT)
    told = str(caught.value)
    assert len(told) < 1_200
    assert "http" not in told
    return told


def google(query: str, limit: int = 10) -> None:
    """Search the shop.

    It looks everywhere.

    Args:
        query (str): What to look for,
            in plain words.
        limit: How many.
    """


def numpy(query: str, limit: int = 10) -> None:
    """Search the shop.

    It looks everywhere.

    Parameters
    ----------
    query : str
        What to look for,
        in plain words.
    limit : int
        How many.
    """


def sphinx(query: str, limit: int = 10) -> None:
    """Search the shop.

    It looks everywhere.

    :param query: What to look for,
        in plain words.
    :param limit: How many.
    """


@pytest.mark.parametrize("function", [google, numpy, sphinx])
def test_a_tool_is_described_by_its_hints_and_docstring(function: Callable[..., None]) -> None:
    spec = tool(function).spec
    assert (spec.name, spec.description) == (
        function.__name__,
        "Search the shop.\n\nIt looks everywhere.",
    )
    said = spec.parameters["properties"]["query"].pop("description")
    assert " ".join(said.split()) == "What to look for, in plain words."
    assert spec.parameters == {
        "type": "object",
        "properties": {
            "query": {"type": "string"},
            "limit": {"type": "integer", "default": 10, "description": "How many."},
        },
        "required": ["query"],
        "additionalProperties": False,
    }


def test_what_a_function_returns_is_part_of_its_description() -> None:
    def look() -> int:
        """Look.

        Returns:
            How many there are.
        """
        return 3

    description = tool(look).spec.description
    assert "Look." in description
    assert "How many there are." in description


def test_a_name_and_a_description_of_ones_own_go_first() -> None:
    spec = tool(name="find-it", description="Find it.")(google).spec
    assert (spec.name, spec.description) == ("find-it", "Find it.")
    assert tool(description="")(google).spec.description == ""


def test_a_function_without_docstring_and_hints_is_a_tool_too() -> None:
    made = shape_of(eval("lambda anything, more=3: (anything, more)"), "test")
    assert made.description == ""
    assert made.parameters["properties"] == {"anything": {}, "more": {"default": 3}}
    assert made.arguments({"anything": [None]}, CONTEXT) == ([], {"anything": [None], "more": 3})


def test_a_tool_without_arguments_has_an_empty_schema() -> None:
    def nothing() -> None: ...

    expected: dict[str, Any] = {
        "type": "object",
        "properties": {},
        "required": [],
        "additionalProperties": False,
    }
    assert schema_of(nothing) == expected
    assert accepted(nothing, {}) == {}


def test_an_object_is_described_by_its_call_else_by_its_class() -> None:
    class Told:
        """Of the class."""

        def __call__(self, a: int) -> None:
            """Of the call."""

    class Silent:
        """Of the class."""

        def __call__(self, a: int) -> None: ...

    assert tool(Told()).spec.description == "Of the call."
    assert tool(Silent()).spec.description == "Of the class."
    assert tool(partial(google, limit=3)).spec.description.startswith("Search the shop.")


def test_what_a_partial_has_bound_is_not_told_to_the_model() -> None:
    def fetch(address: str, key: str, retries: int = 3) -> None: ...

    made = tool(partial(fetch, key="secret"))
    assert set(made.spec.parameters["properties"]) == {"address", "retries"}
    assert "secret" not in str(made.spec)
    assert set(schema_of(partial(fetch, "here"))["properties"]) == {"key", "retries"}
    assert "key" in refused(partial(fetch, key="secret"), {"address": "a", "key": "other"})


def test_every_kind_of_type_has_a_schema() -> None:
    def kinds(  # noqa: PLR0917
        color: Color,
        box: Box,
        point: Point,
        day: date,
        mode: Literal["a", "b"],
        numbers: list[float],
        basket: Basket,
        level: Level,
        at_least: Annotated[int, Field(ge=1, description="One or more.")],
        maybe: str | None,
        anything: Any,
        /,
        tags: list[str] = ["x"],  # noqa: B006
    ) -> None: ...

    schema = schema_of(kinds)
    properties = schema["properties"]
    assert set(schema["$defs"]) == {"Color", "Box", "Point", "Item", "Basket", "Level"}
    assert properties["mode"] == {"enum": ["a", "b"], "type": "string"}
    assert properties["at_least"]["minimum"] == 1
    assert properties["at_least"]["description"] == "One or more."
    assert properties["day"]["format"] == "date"
    assert properties["maybe"] == {"anyOf": [{"type": "string"}, {"type": "null"}]}
    assert properties["tags"]["default"] == ["x"]
    assert len(schema["required"]) == 11


def test_a_lone_model_keeps_the_name_of_its_parameter() -> None:
    def buy(item: Item) -> None: ...

    def sell(item: Item = Item(name="tea")) -> None: ...  # noqa: B008

    assert set(schema_of(buy)["properties"]) == {"item"}
    assert accepted(buy, {"item": {"name": "tea"}}) == {"item": Item(name="tea")}
    assert accepted(sell, {}) == {"item": Item(name="tea")}


@pytest.mark.parametrize(
    ("hint", "given", "got"),
    [
        (int, "3", 3),
        (int, 3.0, 3),
        (float, "2.5", 2.5),
        (bool, "true", True),
        (str | None, None, None),
        (int | str, "3", "3"),
        (list[int], ["1", 2], [1, 2]),
        (set[int], [1, 1], {1}),
        (tuple[int, str], [1, "a"], (1, "a")),
        (dict[str, Item], {"a": {"name": "tea"}}, {"a": Item(name="tea")}),
        (Point, {"x": 1}, Point(1, 0)),
        (Box, {"width": "2"}, {"width": 2}),
        (Color, "red", Color.RED),
        (Level, 2, Level.HIGH),
        (Literal["a", 1], 1, 1),
        (date, "2026-01-02", date(2026, 1, 2)),
        (datetime, "2026-01-02T03:04:05Z", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        (Decimal, "1.10", Decimal("1.10")),
        (UUID, "00000000-0000-0000-0000-000000000001", UUID(int=1)),
        (bytes, "text", b"text"),
        (Exact, {"day": "2026-01-02"}, Exact(day=date(2026, 1, 2))),
        (Annotated[int, Field(ge=1)], 1, 1),
        (Any, {"a": [None]}, {"a": [None]}),
    ],
)
def test_arguments_become_what_the_hints_say(hint: Any, given: Any, got: Any) -> None:
    def take(value: Any) -> None: ...

    take.__annotations__["value"] = hint
    value = accepted(take, {"value": given})["value"]
    assert value == got
    assert type(value) is type(got)


def test_a_default_is_used_and_never_shared_between_calls() -> None:
    def take(tags: list[str] = ["x"], count: int = 2) -> None: ...  # noqa: B006

    shape = shape_of(take, "test")
    _, first = shape.arguments({}, CONTEXT)
    assert first == {"tags": ["x"], "count": 2}
    first["tags"].append("y")
    assert shape.arguments({"count": 3}, CONTEXT)[1] == {"tags": ["x"], "count": 3}


def take_some(count: Annotated[int, Field(ge=1)], item: Item | None = None) -> None: ...


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "count: Field required"),
        ({"count": "many"}, "count: Input should be a valid integer"),
        ({"count": None}, "count: Input should be a valid integer"),
        ({"count": 0}, "count: Input should be greater than or equal to 1"),
        ({"count": 1, "more": 2}, "more: Extra inputs are not permitted"),
        ({"count": 1, "item": {"name": "tea", "count": 0}}, "item.count: Input should be greater"),
        ({"count": 1, "item": {}}, "item.name: Field required"),
        ({"count": 0, "more": 2}, "to 1; more: Extra"),
    ],
)
def test_bad_arguments_are_told_by_their_names(given: dict[str, Any], told: str) -> None:
    assert told in refused(take_some, given)


def test_a_long_list_of_mistakes_is_cut() -> None:
    def take(numbers: list[int]) -> None: ...

    told = refused(take, {"numbers": ["x"] * 50})
    assert told.endswith("; and 45 more")
    assert len(refused(take, {"z" * 5_000: 1})) < 300


def test_what_a_validator_of_the_user_says_is_told_as_it_is() -> None:
    def even(value: int) -> int:
        if value % 2:
            raise ValueError("only even numbers")
        return value

    def take(value: Annotated[int, pydantic.AfterValidator(even)]) -> None: ...

    assert refused(take, {"value": 3}) == "value: only even numbers"

    def choose(value: Annotated[int, pydantic.AfterValidator(even)] | list[int]) -> None: ...

    assert "even()" not in refused(choose, {"value": 3})


def test_positional_parameters_are_passed_by_position() -> None:
    def take(a: int, context: RunContext, b: int, /, c: int, *, d: int = 4) -> None: ...

    positional, named = shape_of(take, "test").arguments({"a": 1, "b": "2", "c": 3}, CONTEXT)
    assert positional == [1, CONTEXT, 2]
    assert named == {"c": 3, "d": 4}


def plain(context: RunContext, a: int) -> None: ...
def last(a: int, *, context: RunContext) -> None: ...
def optional(a: int, context: RunContext | None = None) -> None: ...
def old(a: int, context: typing.Optional[RunContext] = None) -> None: ...  # noqa: UP045
def noted(a: int, context: Annotated[RunContext, "of the turn"]) -> None: ...
def quoted(context: "RunContext", a: int) -> None: ...


@pytest.mark.parametrize(
    "function",
    [
        plain,
        last,
        optional,
        old,
        noted,
        quoted,
        postponed_tools.plain,
        postponed_tools.optional,
        postponed_tools.for_type_checkers,
        postponed_tools.Thing().method,
        postponed_tools.Thing(),
        partial(postponed_tools.plain),
    ],
)
def test_the_context_is_filled_in_and_not_told(function: Callable[..., Any]) -> None:
    assert set(schema_of(function)["properties"]) == {"a"}
    assert accepted(function, {"a": 1}) == {"a": 1, "context": CONTEXT}
    assert "context" in refused(function, {"a": 1, "context": {}})


def test_hints_that_are_text_are_looked_up_where_they_were_written() -> None:
    schema = schema_of(postponed_tools.nested)
    assert schema["properties"]["items"]["items"] == {"$ref": "#/$defs/Later"}
    [later] = accepted(postponed_tools.nested, {"items": [{"a": "1"}]})["items"]
    assert later == postponed_tools.Later(a=1)


def strange(session: Session) -> None: ...
def called(back: Callable[[int], int]) -> None: ...


class Shop:
    @tool
    def search(self, query: str) -> None:
        """Search."""


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (strange, "'strange' cannot be described to a model: .*tertulia.session.Session"),
        (called, "'called' cannot be described to a model"),
        (postponed_tools.unknown, "hints of tool 'unknown' cannot be read: name 'Unknown'"),
        (Shop.search, r"'search' is a method.*tools=\[thing.search\]"),
    ],
)
async def test_what_no_schema_can_say_is_refused_with_the_name_of_the_tool(
    function: Any, told: str
) -> None:
    tools = tools_of([function])
    with pytest.raises(InvalidInput, match=told) as caught:
        await prepare(tools.values())
    assert "http" not in str(caught.value)
    assert not next(iter(tools.values())).prepared


async def test_schemas_are_made_once() -> None:
    tools = tools_of([google, numpy]).values()
    assert not any(each.prepared for each in tools)
    first = await prepare(tools)
    assert [spec.name for spec in first] == ["google", "numpy"]
    assert all(each.prepared for each in tools)
    assert all(a is b for a, b in zip(first, await prepare(tools), strict=True))
    assert await prepare([]) == []


def test_making_tools_imports_no_model_library() -> None:
    code = """
import asyncio, sys
from tertulia import Agent, tool
from tertulia.agents import RunContext
from tertulia.agents.outputs import Output
from tertulia.agents.tools import prepare

@tool(requires_approval=True)
def search(query: str, context: RunContext) -> None:
    '''Search.'''

agent = Agent(tools=[search])
assert asyncio.run(prepare([])) == []
assert not {"pydantic", "pydantic_core", "pydantic_ai", "griffe"} & set(sys.modules)
asyncio.run(prepare([search]))
assert "pydantic_ai" in sys.modules
"""
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stderr) == (0, "")
