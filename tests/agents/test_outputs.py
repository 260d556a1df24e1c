"""Structured answers: the schema that is asked for, and the reading of what a model says."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field
from typing_extensions import TypedDict

from tertulia import Session
from tertulia.agents import outputs
from tertulia.agents.outputs import output_of, prepare_output
from tertulia.errors import InvalidInput

T = TypeVar("T")


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Summary(pydantic.BaseModel):
    """What was said."""

    title: str
    points: list[str] = []
    rating: int = Field(default=3, ge=1, le=5)


class Node(pydantic.BaseModel):
    name: str
    children: list[Node] = []


class Shop(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(populate_by_name=True, strict=True)
    opened: date = Field(alias="openedOn")
    color: Color = Color.RED
    price: Decimal = Decimal(1)

    @pydantic.computed_field
    @property
    def label(self) -> str:
        return f"since {self.opened}"


class Box(pydantic.BaseModel, Generic[T]):
    inside: T


class Wrapped(pydantic.BaseModel):
    response: int


class Numbers(pydantic.RootModel[list[int]]):
    pass


class Where(TypedDict):
    city: str


class Pair(NamedTuple):
    left: int
    right: str


@dataclass
class Point:
    """A place."""

    x: int
    y: int = 0


OBJECTS: list[tuple[Any, Any]] = [
    (Summary, Summary(title="a", points=["b"])),
    (Point, Point(1, 2)),
    (Where, {"city": "Madrid"}),
    (Node, Node(name="a", children=[Node(name="b")])),
    (Shop, Shop(openedOn=date(2026, 1, 2), color=Color.BLUE, price=Decimal("1.10"))),
    (Box[int], Box[int](inside=1)),
    (Box[Where], Box[Where](inside={"city": "Madrid"})),
    (Wrapped, Wrapped(response=1)),
    (Annotated[Summary, Field(description="Noted.")], Summary(title="a")),
]
OTHERS: list[tuple[Any, Any]] = [
    (str, "text"),
    (int, 3),
    (bool, False),
    (float, 0.1),
    (Color, Color.BLUE),
    (list[int], [1, 2]),
    (list[Summary], [Summary(title="a")]),
    (dict[str, int], {"response": 1}),
    (dict[str, Any], {"response": {"response": 1}}),
    (tuple[int, str], (1, "a")),
    (set[int], {1, 2}),
    (Summary | Point, Point(1, 2)),
    (int | None, None),
    (Literal["yes", "no"], "no"),
    (datetime, datetime(2026, 1, 2, 3, tzinfo=UTC)),
    (Numbers, Numbers([1, 2])),
    (Pair, Pair(1, "a")),
    (Annotated[int, Field(ge=1)], 1),
    (Any, {"a": [1]}),
]


@pytest.mark.parametrize(("kind", "value"), OBJECTS + OTHERS)
def test_what_is_dumped_is_read_again(kind: Any, value: Any) -> None:
    output = output_of(kind)
    text = output.dump(value)
    read = output.read(text)
    assert read == value
    assert type(read) is type(value)
    assert output.read_arguments(json.loads(text)) == value
    assert output.spec.parameters["type"] == "object"
    assert set(json.loads(text)) <= set(output.spec.parameters["properties"])


@pytest.mark.parametrize(("kind", "value"), OTHERS)
def test_what_is_no_object_is_wrapped_and_may_come_without_wrapping(kind: Any, value: Any) -> None:
    output = output_of(kind)
    assert output.spec.parameters["required"] == ["response"]
    inside = json.loads(output.dump(value))["response"]
    assert output.jsonable(value) == inside
    if not isinstance(inside, dict) or "response" not in inside:
        assert output.read(json.dumps(inside)) == value


def test_the_spec_says_what_the_type_says_of_itself() -> None:
    spec = output_of(Summary).spec
    assert (spec.name, spec.description) == ("Summary", "What was said.")
    assert spec.parameters == {
        "type": "object",
        "properties": {
            "title": {"type": "string"},
            "points": {"type": "array", "items": {"type": "string"}, "default": []},
            "rating": {"type": "integer", "default": 3, "minimum": 1, "maximum": 5},
        },
        "required": ["title"],
    }
    assert output_of(Box[int]).spec.name == "Box_int"
    assert output_of(list[Summary]).spec.name == "list"
    assert output_of(Summary | Point).spec.name == "final_result"
    assert output_of(OBJECTS[-1][0]).spec.description == "Noted."
    node = output_of(Node).spec.parameters
    assert node["properties"]["children"]["items"] == {"$ref": "#/$defs/Node"}
    assert "Node" in node["$defs"]


def test_a_value_is_given_as_json_without_its_wrapping() -> None:
    shop = Shop(openedOn=date(2026, 1, 2))
    expected = {"openedOn": "2026-01-02", "color": "red", "price": "1"}
    assert output_of(Shop).jsonable(shop) == expected
    assert output_of(list[Shop]).jsonable([shop]) == [expected]


SAID = '{"title": "a", "points": ["use ```json``` here"]}'


@pytest.mark.parametrize(
    "text",
    [
        SAID,
        f"\n\t {SAID} \n",
        f"```json\n{SAID}\n```",
        f"```\n{SAID}```",
        f"```JSON  \r\n{SAID}\r\n```\n",
        f"Here it is:\n\n```json\n{SAID}\n```\nAnything else?",
        f"\ufeff{SAID}",
    ],
)
def test_an_answer_may_have_a_fence_around_it(text: str) -> None:
    assert output_of(Summary).read(text) == Summary(title="a", points=["use ```json``` here"])


@pytest.mark.parametrize(
    ("kind", "text", "told"),
    [
        (Summary, "", "Invalid JSON: EOF"),
        (Summary, "I would say it went well.", "Invalid JSON: expected"),
        (Summary, '{"title": "a"} {"title": "b"}', "Invalid JSON: trailing characters"),
        (Summary, "[]", "Input should be an object"),
        (Summary, "{}", "title: Field required"),
        (Summary, '{"title": "a", "rating": 9}', "rating: Input should be less than or equal to 5"),
        (Node, '{"name": "a", "children": [{}]}', "children.0.name: Field required"),
        (list[int], "nothing", "Invalid JSON"),
        (list[int], '{"response": ["a"]}', "response.0: Input should be a valid integer"),
        (list[int], '{"other": [1]}', "response: Input should be a valid array"),
        (Color, '"green"', "response: Input should be 'red' or 'blue'"),
        (int | None, '{"response": "x"}', "valid integer"),
    ],
)
def test_an_answer_that_does_not_fit_is_told_in_a_few_words(
    kind: Any, text: str, told: str
) -> None:
    with pytest.raises(ValueError, match=r"\w") as caught:
        output_of(kind).read(text)
    assert told in str(caught.value)
    assert "http" not in str(caught.value)
    assert len(str(caught.value)) < 1_200


def test_the_arguments_of_a_final_call_are_told_alike() -> None:
    assert output_of(int).read_arguments({"response": "3"}) == 3
    with pytest.raises(ValueError, match=r"^title: Field required$"):
        output_of(Summary).read_arguments({})
    with pytest.raises(ValueError, match=r"^response: Input should be a valid integer"):
        output_of(int).read_arguments({"response": "many"})
    with pytest.raises(ValueError, match=r"^response: Input should be a valid integer"):
        output_of(int).read_arguments({})


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (Session, r"cannot be described to a model as an answer: .*Session'>$"),
        (Callable[[int], int], "cannot be described to a model as an answer"),
        ({"type": "object"}, "cannot be asked for as dict; pass a type"),
        (Summary(title="a"), "cannot be asked for as Summary; pass a type"),
        ([Summary, Point], "cannot be asked for as list; pass a type"),
        ("Summary", "cannot be asked for as str; pass a type"),
        (None, "cannot be asked for as NoneType; pass a type"),
    ],
)
async def test_what_no_schema_can_say_is_refused(kind: Any, told: str) -> None:
    with pytest.raises(InvalidInput, match=told) as caught:
        await prepare_output(kind)
    assert "http" not in str(caught.value)


async def test_an_output_is_made_once_for_a_type() -> None:
    class Fresh(pydantic.BaseModel):
        a: int

    made = await prepare_output(Fresh)
    assert await prepare_output(Fresh) is made
    assert output_of(Fresh) is made
    assert repr(made) == "Output('Fresh')"
    unhashable = Annotated[int, Field(json_schema_extra={"a": []}), {}]
    assert (await prepare_output(unhashable)).read("3") == 3


def test_only_so_many_outputs_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs, "MAX_KNOWN", 2)
    monkeypatch.setattr(outputs, "_known", outputs._Known())  # pyright: ignore[reportPrivateUsage]
    first = output_of(int)
    assert output_of(int) is first
    output_of(str)
    output_of(float)
    assert output_of(int) is not first


TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.builds(Summary, title=TEXT, points=st.lists(TEXT), rating=st.integers(1, 5)))
def test_any_model_is_read_as_it_was_dumped(value: Summary) -> None:
    output = output_of(Summary)
    assert output.read(output.dump(value)) == value
    assert output.read(f"```json\n{output.dump(value)}\n```") == value


@given(
    st.lists(
        st.builds(
            Shop,
            openedOn=st.dates(),
            color=st.sampled_from(Color),
            price=st.decimals(allow_nan=False, allow_infinity=False),
        )
    )
)
def test_any_list_of_models_is_read_as_it_was_dumped(value: list[Shop]) -> None:
    output = output_of(list[Shop])
    assert output.read(output.dump(value)) == value


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT | st.just("response"), inner),
    max_leaves=8,
)


@given(st.dictionaries(TEXT | st.just("response"), JSON))
def test_any_mapping_is_read_as_it_was_dumped(value: dict[str, Any]) -> None:
    output = output_of(dict[str, Any])
    assert output.read(output.dump(value)) == value
    assert output.jsonable(value) == value


@given(st.none() | st.integers() | TEXT | st.lists(st.sampled_from(Color)))
def test_any_member_of_a_union_is_read_as_it_was_dumped(
    value: int | str | list[Color] | None,
) -> None:
    output = output_of(int | str | list[Color] | None)
    assert output.read(output.dump(value)) == value
