"""What a bus carries: events as users write them, topics and patterns."""

from __future__ import annotations

from typing import Any

import pytest

from tertulia.bus import BusEvent
from tertulia.bus.base import compiled
from tertulia.errors import InvalidInput

PAGE = {
    "type": "emit",
    "source": "session-bus",
    "input": {"message": "hello"},
    "output": {},
    "context": {"swarm_name": "shop"},
    "client_id": "client-1",
}
LEAST = {"type": "placed", "source": "order"}


def test_an_event_is_read_from_a_mapping_as_the_page_writes_it() -> None:
    event = BusEvent.parse(PAGE, "client-1")
    assert event.topic == "session.emit"
    assert event.to_dict() == PAGE | {"seq": None, "time": None}


def test_the_client_may_be_left_out_or_written_as_in_the_page() -> None:
    assert BusEvent.parse(LEAST, "c").client_id == "c"
    assert BusEvent.parse(LEAST | {"clientId": "c"}, "c").client_id == "c"


def test_an_event_that_is_one_already_is_checked_and_copied() -> None:
    given = BusEvent(type="placed", source="order", input={"a": [1]}, client_id="c", seq=3)
    parsed = BusEvent.parse(given, "c")
    assert parsed == given
    parsed.input["a"].append(2)
    assert given.input == {"a": [1]}


def test_a_source_without_the_ending_of_the_page_is_a_topic_as_it_is() -> None:
    assert BusEvent.parse(LEAST, "c").topic == "order.placed"


def test_two_events_do_not_share_their_empty_mappings() -> None:
    first, second = BusEvent.parse(LEAST, "c"), BusEvent.parse(LEAST, "c")
    first.context["a"] = 1
    assert second.context == {}


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("text", "mapping"),
        (None, "mapping"),
        ({"source": "order"}, "no type"),
        ({"type": "placed"}, "no source"),
        (LEAST | {"type": ""}, "empty"),
        (LEAST | {"type": 5}, "text"),
        (LEAST | {"type": "a*"}, "cannot be listened to"),
        (LEAST | {"source": "-bus"}, "cannot be listened to"),
        (LEAST | {"payload": 1}, "'payload'"),
        (LEAST | {5: 1}, "no 5"),
        (LEAST | {"client_id": "other"}, "'other'"),
        (LEAST | {"client_id": None}, "None"),
        (LEAST | {"client_id": "c", "clientId": "d"}, "differ"),
        (LEAST | {"input": "text"}, "input must be a mapping"),
        (LEAST | {"output": None}, "output must be a mapping"),
        (LEAST | {"context": {"a": b"bytes"}}, "context"),
        (LEAST | {"input": {"a": float("nan")}}, "nan"),
        (LEAST | {"input": {1: 2}}, "key"),
        (LEAST | {"seq": -1}, "seq"),
        (LEAST | {"seq": True}, "seq"),
        (LEAST | {"time": 1.5}, "time"),
    ],
)
def test_an_event_that_cannot_be_carried_is_refused_with_a_reason(wrong: Any, told: str) -> None:
    with pytest.raises(InvalidInput, match=r"(?s).*" + told.replace("[", r"\[")):
        BusEvent.parse(wrong, "c")


@pytest.mark.parametrize("client", ["", "*", None, 5, "a\nb"])
def test_an_event_is_of_one_client_that_has_an_id(client: Any) -> None:
    with pytest.raises(InvalidInput):
        BusEvent.parse(LEAST, client)


@pytest.mark.parametrize(
    ("pattern", "fits", "not_these"),
    [
        ("*", ["session.execute", "a.b.c"], []),
        ("session.execute", ["session.execute"], ["session.executes", "a.session.execute"]),
        ("session.*", ["session.execute", "session.a.b"], ["sessions.execute", "session"]),
        ("*.execute", ["session.execute", "a.b.execute"], ["session.execute.b", "execute"]),
        ("*ses*cut*", ["session.execute"], ["cut.session", "session.cu"]),
        ("a*a.b", ["aa.b", "axa.b"], ["a.b"]),
        ("a.*b*b", ["a.bb", "a.bxb"], ["a.b", "a.xbx"]),
        ("**", ["session.execute"], []),
    ],
)
def test_a_star_of_a_pattern_stands_for_any_text(
    pattern: str, fits: list[str], not_these: list[str]
) -> None:
    matches = compiled(pattern)
    assert [topic for topic in fits if not matches(topic)] == []
    assert [topic for topic in not_these if matches(topic)] == []


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        ("", "empty"),
        (None, "text"),
        ("session", r"session\.\*"),
        ("session.?", r"only \*"),
        ("[a].b", r"only \*"),
        ("session-bus.execute", "session.execute"),
        ("session-bus.*", "leave out"),
        ("a.*" * 400, "at most"),
    ],
)
def test_a_pattern_that_nothing_can_match_is_refused_with_a_reason(pattern: Any, told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        compiled(pattern)
