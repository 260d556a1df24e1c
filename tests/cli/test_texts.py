"""How messages and events are written."""

from __future__ import annotations

from typing import Any

import pytest

from tertulia.cli import texts
from tertulia.events import Event
from tertulia.messages import Message, ToolCall


def event(kind: str, body: dict[str, Any] | None) -> str:
    return texts.event_text(Event("s", 7, kind, 0, "app", 7, body, "00")).split(kind, 1)[1].strip()


@pytest.mark.parametrize("char", ["\x1b", "\x07", "\x9b", "\x7f", "\u202e", "\r"])
def test_control_characters_are_replaced(char: str) -> None:
    assert char not in texts.plain(f"a{char}b")


def test_lines_and_tabs_are_kept() -> None:
    assert texts.plain("a\tb\r\nc\n") == "a\tb\nc\n"


def test_a_text_is_cut_to_one_line() -> None:
    assert texts.short("a\n  b") == "a b"
    assert len(texts.short("x" * 500, 10)) == 10


def test_a_message_shows_its_parts_and_its_calls() -> None:
    call = ToolCall("c", "add", {"a": 1})
    assert texts.message_text(Message("assistant", "", [call], seq=3)) == "[3]   -> add(a=1)"
    said = texts.message_text(Message("assistant", "so", [call], agent="demo"))
    assert said == "assistant (demo): so\n  -> add(a=1)"
    parts: list[dict[str, Any]] = [{"type": "text", "text": "look"}, {"type": "image"}]
    assert texts.message_text(Message("user", parts)) == "user: look[image]"


def test_an_event_says_what_it_is_about() -> None:
    assert event("message.added", {"role": "user", "content": "hi"}) == "user: hi"
    assert event("message.added", {"role": "user", "content": [{}, {}]}) == "user: [2 parts]"
    assert event("state.set", {"scope": "user", "key": "k", "value": [1]}) == "user:k = [1]"
    assert event("state.deleted", {"key": "k"}) == "session:k"
    assert event("turn.failed", {"error": "X", "text": ""}) == '"error": "X"'
    assert event("message.added", None) == "(erased)"


def test_numbers_have_their_noun() -> None:
    assert texts.count(1, "event") == "1 event"
    assert texts.count(1200, "event") == "1,200 events"
