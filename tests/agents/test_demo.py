"""The demo's agents, and the forms that they fill in without a language model."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

import pytest
from pydantic import BaseModel, Field

from tertulia import Message, Session
from tertulia.agents import forms
from tertulia.agents.demo import Summary, demo_agent
from tertulia.agents.outputs import output_of


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch) -> Session:
    monkeypatch.setenv("TERTULIA_OFFLINE_PAUSE", "0")
    return demo_agent("offline").session()


def test_an_order_is_handed_over_and_waits_in_one_turn(demo: Session) -> None:
    response = demo.run("order two coffees")
    assert [call.name for call in response.tool_calls] == ["transfer_to_order_desk", "place_order"]
    [waiting] = response.pending
    assert (waiting.name, waiting.arguments) == ("place_order", {"what": "two coffees"})
    assert demo.floor == "order_desk"
    demo.approve(waiting.id)
    assert demo.resume().text == "place order: order 1 is placed: two coffees"
    assert demo.state["orders"] == ["two coffees"]


def test_the_conversation_can_be_given_back(demo: Session) -> None:
    demo.run("Let me talk to the order desk")
    assert demo.floor == "order_desk"
    response = demo.run("Let me talk to demo")
    assert (response.agent, demo.floor) == ("demo", "demo")
    assert response.text == "You are with me now. What can I do?"


def test_both_agents_know_what_was_said(demo: Session) -> None:
    demo.run("My name is Ana")
    demo.run("Let me talk to the order desk")
    response = demo.run("What is my name?")
    assert (response.agent, response.text) == ("order_desk", "Your name is Ana.")


def test_a_summary_has_what_was_told_and_what_tools_said(demo: Session) -> None:
    demo.run("My name is Ana")
    demo.run("What is 12 * 12?")
    summary = demo.json("Summarize our conversation", schema=Summary).output
    assert summary == Summary("your name is Ana", ["your name is Ana", "12 * 12 = 144"])


class Color(Enum):
    """A color."""

    red = "red"
    blue = "blue"


@dataclass
class Inner:
    """A part."""

    home: str
    numbers: list[int] = field(default_factory=list[int])


class Everything(BaseModel):
    """One of each kind."""

    name: str
    color: Color
    level: Literal["low", "high"]
    messages: int = Field(ge=5)
    share: float
    sure: bool
    nothing: None
    maybe: str | None
    facts: list[str]
    inner: Inner
    parts: list[Inner]


def told(*texts: str) -> list[Message]:
    return [Message.user(text) for text in (*texts, "Fill in the form")]


def test_a_form_is_filled_in_with_what_fits_its_schema() -> None:
    output = output_of(Everything)
    messages = told("My name is Ana", "I live in Lisbon", "Blue is fine, at a high level")
    filled = output.read(forms.fill(output.spec, messages))
    assert (filled.name, filled.inner.home) == ("Ana", "Lisbon")
    assert (filled.color, filled.level) == (Color.blue, "high")
    assert (filled.messages, filled.share, filled.sure) == (5, 3.0, False)
    assert filled.facts == ["your name is Ana", "you live in Lisbon"]
    assert (filled.inner.numbers, filled.parts) == ([], [])


@pytest.mark.parametrize("kind", [str, int, bool, list[str], dict[str, int], Color, Inner])
def test_a_form_of_any_kind_fits_when_nothing_was_said(kind: type) -> None:
    output = output_of(kind)
    output.read(forms.fill(output.spec, told()))


class Tree(BaseModel):
    """A type that holds itself."""

    left: Tree | None = None
    label: str


def test_a_type_that_holds_itself_comes_to_an_end() -> None:
    output = output_of(Tree)
    output.read(forms.fill(output.spec, told("hello")))
