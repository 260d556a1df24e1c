"""The reference names what is there: every method with its parameters, every event, every error."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

import tertulia
from tertulia import (
    JWT,
    Agent,
    AgentApp,
    AgentNode,
    AgentRouter,
    AgentSession,
    BackgroundNode,
    LiveEvent,
    Memory,
    Node,
    OutputNode,
    Runtime,
    Session,
    SwarmNode,
    Token,
    errors,
    swarm,
    tool,
)
from tertulia.agents import AsyncStream, Response, Stream
from tertulia.agents.response import EventType
from tertulia.events import EVENT_TYPES
from tertulia.live import link
from tertulia.retention import Retention
from tertulia.swarm.topics import BUS_NAMES
from tertulia.turns import Turn

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {page.name: page.read_text() for page in sorted((DOCS / "reference").glob("*.md"))}
TEXT = "\n".join(PAGES.values())
CLASSES = (
    *(Session, Turn, Runtime, Agent, AgentRouter, Stream, AsyncStream, Memory),
    *(AgentApp, AgentSession, Node, Token, JWT),
    *(swarm.Swarm, swarm.ClientSession, swarm.ClientStream, swarm.Send, swarm.Policy),
    *(swarm.SessionConnectionService, swarm.SessionPublicService),
)
MADE: tuple[Any, ...] = (
    *(Session, Runtime, Agent, AgentRouter, Memory, tool),
    *(AgentApp, Node, OutputNode, AgentNode, Token, JWT),
    *(swarm.Swarm, swarm.Policy, SwarmNode),
)
STRUCTS = (
    *(swarm.PolicyContext, swarm.Refusal, swarm.Verdict, swarm.Ban),
    *(swarm.Outgoing, swarm.Rescue, swarm.Failure, swarm.Retry),
)
KINDS_OF_NODES = (BackgroundNode, OutputNode, AgentNode)

_SECTION = re.compile(r"^## (.+)\n((?:(?!^## ).*\n?)*)", re.MULTILINE)
_FIRST_CELL = re.compile(r"^\| `([^`|]+)`", re.MULTILINE)
_STARS = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}

SECTIONS = [section for page in PAGES.values() for section in _SECTION.findall(page)]


def rows(heading: str) -> dict[str, str]:
    """The first cells of the tables under a heading, by the name that they begin with."""
    found: dict[str, str] = {}
    for title, text in SECTIONS:
        if title == heading:
            cells = _FIRST_CELL.findall(text)
            found.update((re.split(r"\W", cell.lstrip("*"))[0], cell) for cell in cells)
    return found


def told(owner: type) -> dict[str, str]:
    """What the reference tells of a class: under its name, and under "name: something"."""
    name = owner.__name__
    found: dict[str, str] = {}
    for title, _ in SECTIONS:
        if title == name or (title.startswith(f"{name}: ") and title != f"{name}: parameters"):
            found.update(rows(title))
    return found


def parameters(function: Callable[..., Any]) -> list[str]:
    """The names of its parameters, without self."""
    named = inspect.signature(function).parameters.values()
    return [_STARS.get(each.kind, "") + each.name for each in named if each.name != "self"]


def as_cell(owner: type, name: str) -> str:
    """How a public name is to be written: a method with its parameters, all else without."""
    member = getattr(owner, name)
    if isinstance(member, type) or not callable(member):
        return name
    return f"{name}({', '.join(parameters(member))})"


def is_named(name: str) -> bool:
    return re.search(rf"(?<![\w.]){re.escape(name)}(?![\w-]|\.\w)", TEXT) is not None


@pytest.mark.parametrize("owner", CLASSES, ids=[owner.__name__ for owner in CLASSES])
def test_the_reference_has_every_public_method_with_its_parameters_and_no_other(
    owner: type,
) -> None:
    public = {name: as_cell(owner, name) for name in dir(owner) if not name.startswith("_")}
    assert told(owner) == public


@pytest.mark.parametrize("made", MADE, ids=[made.__name__ for made in MADE])
def test_the_reference_has_every_parameter(made: Callable[..., Any]) -> None:
    assert list(rows(f"{made.__name__}: parameters").values()) == parameters(made)


@pytest.mark.parametrize("kind", KINDS_OF_NODES, ids=[kind.__name__ for kind in KINDS_OF_NODES])
def test_the_reference_has_what_a_kind_of_node_adds_to_a_node_or_changes(kind: type) -> None:
    own = [
        name
        for name in dir(kind)
        if not name.startswith("_") and getattr(kind, name) is not getattr(Node, name, None)
    ]
    assert told(kind) == {name: as_cell(kind, name) for name in own}


def test_the_reference_has_what_a_node_of_a_swarm_adds_to_that_of_an_agent() -> None:
    own = [
        name
        for name in dir(SwarmNode)
        if not name.startswith("_")
        and getattr(SwarmNode, name) is not getattr(AgentNode, name, None)
    ]
    assert told(SwarmNode) == {name: as_cell(SwarmNode, name) for name in own}


@pytest.mark.parametrize("struct", STRUCTS, ids=[struct.__name__ for struct in STRUCTS])
def test_the_reference_has_every_field_of_what_swarms_give_and_take(struct: Any) -> None:
    assert list(rows(struct.__name__)) == list(struct.__struct_fields__)


def test_the_reference_has_what_an_answer_says_besides_its_text() -> None:
    own = {name for name in dir(swarm.Answer) if not name.startswith("_")} - set(dir(str))
    assert set(rows("Answer")) == own


@pytest.mark.parametrize("name", swarm.__all__)
def test_the_reference_of_swarms_names_what_the_package_exports(name: str) -> None:
    assert re.search(rf"\b{name}\b", PAGES["swarms.md"])


def test_the_reference_of_swarms_has_every_topic() -> None:
    told = dict(SECTIONS)["What is on the bus"]
    cells = "".join(re.findall(r"^\| (`.+?) \|", told, re.MULTILINE))
    assert sorted(re.findall(r"`([^`]+)`", cells)) == sorted(BUS_NAMES)


def test_the_reference_has_every_field_of_a_live_event() -> None:
    assert list(rows("LiveEvent")) == list(LiveEvent.__struct_fields__)


def test_the_reference_tells_every_code_with_which_the_server_closes() -> None:
    codes = {value for name, value in vars(link).items() if name.isupper() and 1000 < value < 5000}
    assert codes >= {link.TOO_SLOW, link.NOT_AUTHENTICATED}
    told_codes = "".join(
        re.findall(r"^\| (\d{4}.*?) \|", dict(SECTIONS)["Close codes"], re.MULTILINE)
    )
    assert [code for code in codes if str(code) not in told_codes] == []


@pytest.mark.parametrize("name", tertulia.__all__)
def test_the_reference_names_what_the_package_exports(name: str) -> None:
    assert is_named(name)


@pytest.mark.parametrize("kind", EVENT_TYPES)
def test_the_reference_has_every_event_type_and_says_the_same_of_it(kind: str) -> None:
    assert f"| `{kind}` | {EVENT_TYPES[kind]} |" in PAGES["events.md"]


def test_the_reference_has_no_event_type_that_does_not_exist() -> None:
    assert list(_FIRST_CELL.findall(PAGES["events.md"])) == list(EVENT_TYPES)


def test_the_reference_draws_the_tree_of_errors_as_it_is() -> None:
    drawn = re.search(r"^AgentError\n.*?(?=^```)", PAGES["errors.md"], re.MULTILINE | re.DOTALL)
    assert drawn is not None
    assert drawn[0].strip() in (errors.__doc__ or "")


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, Exception)
    ],
)
def test_the_reference_names_every_error(name: str) -> None:
    assert is_named(name)


def test_the_reference_has_every_event_of_a_stream() -> None:
    assert set(rows("Streams")) == set(get_args(EventType))


def test_the_reference_has_every_field_of_a_response() -> None:
    assert list(rows("Response")) == list(Response.__struct_fields__)


def test_the_keys_of_retention_are_told_where_it_is_explained() -> None:
    page = (DOCS / "how-to" / "retention-and-erasure.md").read_text()
    keys = page[page.index("## The keys") : page.index("## Which is stronger")]
    assert set(_FIRST_CELL.findall(keys)) == set(Retention.__struct_fields__)


def test_every_page_of_the_reference_and_every_guide_is_listed() -> None:
    listing = PAGES["README.md"]
    pages = [page for page in PAGES if page != "README.md"]
    guides = [f"../how-to/{page.name}" for page in sorted((DOCS / "how-to").glob("*.md"))]
    assert [link for link in [*pages, *guides] if f"({link})" not in listing] == []
