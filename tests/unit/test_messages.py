"""Messages: by attribute and by key, checked, and shared with nobody."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from tertulia.errors import InvalidInput, InvalidMessage
from tertulia.messages import Message, ToolCall, parse


def test_a_message_is_read_by_attribute_and_by_key() -> None:
    message = parse({"role": "user", "content": "hello", "name": "ann"})
    assert message.role == message["role"] == message.get("role") == "user"
    assert message["content"] == "hello"
    assert message["tool_calls"] is None
    assert "name" in message
    assert "nothing" not in message
    assert message.get("nothing", 5) == 5
    with pytest.raises(KeyError):
        _ = message["nothing"]
    with pytest.raises(KeyError):
        _ = message["to_dict"]
    assert dict(message)["name"] == "ann"
    assert set(message) == set(message.keys())


def test_a_tool_call_is_read_by_attribute_and_by_key() -> None:
    call = ToolCall("x", "f", {"a": 1})
    assert call["name"] == call.name == "f"
    with pytest.raises(KeyError):
        _ = call["nothing"]


def test_there_is_a_short_way_to_each_role() -> None:
    assert Message.system("s").role == "system"
    assert Message.user("u", name="ann").name == "ann"
    assert Message.assistant(tool_calls=[{"id": "x", "name": "f"}]).content == ""
    assert Message.tool("done", "x").tool_call_id == "x"


def test_text_is_the_text_of_all_parts() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "image", "url": "x"}, {"text": "b"}]
    assert parse({"role": "user", "content": parts}).text == "ab"
    assert parse({"role": "user", "content": None}).text == ""


def test_parsing_a_message_copies_it() -> None:
    parts: list[dict[str, Any]] = [{"type": "text", "text": "a"}]
    first = parse({"role": "user", "content": parts, "metadata": {"k": [1]}})
    second = parse(first)
    parts[0]["text"] = "changed"
    assert first.metadata is not None
    first.metadata["k"].append(2)
    assert first.text == "a"
    assert second.metadata == {"k": [1]}


def test_what_to_dict_gives_is_read_again() -> None:
    message = Message(
        role="assistant",
        content="x",
        tool_calls=[ToolCall("x", "f", {"a": [1]})],
        agent="ada",
        metadata={"k": 1},
        id="m1",
        seq=5,
        time=1_700_000_000_000_000,
    )
    data = message.to_dict()
    assert data["timestamp"] == "2023-11-14T22:13:20+00:00"
    assert message.timestamp == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    again = parse(data)
    assert (again.id, again.tool_calls, again.agent) == ("m1", message.tool_calls, "ada")
    assert again.seq is None
    assert again.time is None
    assert "time" not in data
    assert parse({"role": "user"}).to_dict() == {"role": "user"}


def test_the_shape_of_openai_is_understood() -> None:
    call = {"id": "x", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    message = parse({"role": "assistant", "content": None, "tool_calls": [call]})
    assert message.tool_calls == [ToolCall("x", "f", {"a": 1})]
    empty = {"id": "x", "function": {"name": "f", "arguments": ""}}
    assert parse({"role": "assistant", "tool_calls": [empty]}).tool_calls == [ToolCall("x", "f")]
    assert parse({"role": "assistant", "content": "x", "tool_calls": []}).tool_calls is None


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ({"content": "x"}, "role None does not exist; use one of system"),
        ({"role": "nobody"}, "use one of"),
        ({"role": ["user"]}, "does not exist"),
        ({"role": "user", "text": "x", "a": 1}, r"unknown fields \['a', 'text'\]"),
        ({"role": "user", "content": 5}, "cannot be stored"),
        ({"role": "user", "content": [5]}, "cannot be stored"),
        ({"role": "user", "content": float("nan")}, "nan"),
        ({"role": "user", "name": 5}, "cannot be stored"),
        ({"role": "user", "metadata": [1]}, "cannot be stored"),
        ({"role": "tool", "content": "x"}, "needs the tool_call_id"),
        ({"role": "user", "tool_call_id": "x"}, "is for tool messages"),
        ({"role": "user", "tool_calls": [{"id": "x", "name": "f"}]}, "for assistant messages"),
        ({"role": "assistant", "tool_calls": "x"}, "must be a list"),
        ({"role": "assistant", "tool_calls": ["x"]}, "is a mapping"),
        ({"role": "assistant", "tool_calls": [{"id": "", "name": "f"}]}, "needs an id"),
        ({"role": "assistant", "tool_calls": [{"name": "f"}]}, "cannot be stored"),
        (
            {"role": "assistant", "tool_calls": [{"id": "x", "name": "f", "arguments": "{"}]},
            "no JSON object",
        ),
        (
            {"role": "assistant", "tool_calls": [{"id": "x", "name": "f", "arguments": "[1]"}]},
            "cannot be stored",
        ),
        ({"role": "assistant", "tool_calls": [{"id": "x", "name": "f"}] * 2}, "same id"),
        ("text", "a mapping with role and content, not str"),
        (None, "not NoneType"),
    ],
)
def test_a_message_that_no_model_could_read_is_refused(message: Any, says: str) -> None:
    with pytest.raises(InvalidMessage, match=says) as refused:
        parse(message)
    assert isinstance(refused.value, InvalidInput)
