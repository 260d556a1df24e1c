"""What cannot be accepted: a typed error that says what to do, and nothing half-written."""

from __future__ import annotations

from typing import Any

import pytest
from tests.integration.test_sessions_support import (
    say,
    texts,
    user,
)

from tertulia import Message, Runtime, Session
from tertulia.errors import AgentError, InvalidInput, InvalidMessage, UsageError

pytest_plugins = ("tests.integration.test_sessions_support",)

_WRONG_IDS = ["", "x" * 513, "a\0b", "a\nb", "\ud800", 5, b"bytes", ["a"]]


@pytest.mark.parametrize("wrong", _WRONG_IDS)
def test_an_id_that_cannot_be_is_refused(runtime: Runtime, wrong: Any) -> None:
    with pytest.raises(InvalidInput):
        runtime.session(wrong)
    with pytest.raises(InvalidInput):
        runtime.session("s", app_name=wrong)
    with pytest.raises(InvalidInput):
        runtime.session("s", user_id=wrong)


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "a/b", "*", "x" * 512, "ñandú", " ", "%00", "'; DROP TABLE --"]
)
async def test_an_id_is_never_a_path_or_a_pattern(runtime: Runtime, name: str) -> None:
    session = runtime.session(name, app_name=name, user_id=name)
    await say(session, "a")
    await session.set_state("k", 1, scope="user")
    assert texts(await runtime.session(name, app_name=name).history()) == ["a"]
    assert [info.id for info in await runtime.sessions(user_id=name)] == [name]
    fork = session.fork(name + "2" if len(name) < 512 else "y")
    assert texts(await fork.history()) == ["a"]


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"role": "nobody", "content": "x"},
        {"role": "user", "text": "x"},
        {"role": "user", "content": 5},
        {"role": "user", "content": [5]},
        {"role": "user", "content": {"a": 1}},
        {"role": "user", "content": float("nan")},
        {"role": "user", "content": [{"type": "text", "text": float("inf")}]},
        {"role": "user", "content": b"bytes"},
        {"role": "user", "content": "\ud800"},
        {"role": "user", "content": "x", "metadata": {"when": object()}},
        {"role": "user", "content": "x", "metadata": {1: 2}},
        {"role": "user", "content": "x", "tool_calls": [{"id": "a", "name": "f"}]},
        {"role": "user", "content": "x", "tool_call_id": "a"},
        {"role": "tool", "content": "x"},
        {"role": "tool", "content": "x", "tool_call_id": "nobody"},
        {"role": "assistant", "tool_calls": "x"},
        {"role": "assistant", "tool_calls": ["x"]},
        {"role": "assistant", "tool_calls": [{"name": "f"}]},
        {"role": "assistant", "tool_calls": [{"id": "a"}]},
        {"role": "assistant", "tool_calls": [{"id": "", "name": "f"}]},
        {"role": "assistant", "tool_calls": [{"id": "a", "name": "f", "arguments": "{"}]},
        {"role": "assistant", "tool_calls": [{"id": "a", "name": "f", "arguments": [1]}]},
        {"role": "assistant", "tool_calls": [{"id": "a", "name": "f"}] * 2},
        {"role": ["user"], "content": "x"},
        {"role": "user", "content": "x", "name": 5},
        "text",
        5,
        None,
        ["user", "x"],
    ],
)
async def test_a_message_that_no_model_could_read_is_refused_and_nothing_is_written(
    session: Session, wrong: Any
) -> None:
    with pytest.raises((InvalidMessage, InvalidInput)) as refused:
        await session.send_message(wrong)
    assert isinstance(refused.value, UsageError)
    assert isinstance(refused.value, ValueError)
    assert await session.events() == []
    await say(session, "a")
    with pytest.raises(InvalidInput):
        await session.send_messages([user("b"), wrong])
    async with session.turn("c") as turn:
        with pytest.raises(InvalidInput):
            await turn.add_message(wrong)
    assert texts(await session.history()) == ["a", "c"]


async def test_a_message_of_more_than_a_megabyte_is_refused_and_nothing_is_written(
    session: Session,
) -> None:
    with pytest.raises(InvalidInput, match="at most 1,000,000"):
        await session.send_messages([user("a"), user("x" * 1_000_001)])
    assert await session.history() == []
    await session.send_message(user("x" * 999_000))


async def test_a_deeply_nested_message_is_refused(session: Session) -> None:
    nested: Any = "x"
    for _ in range(100):
        nested = [nested]
    with pytest.raises(InvalidInput, match="nested"):
        await session.send_message({"role": "user", "content": "x", "metadata": {"n": nested}})


@pytest.mark.parametrize("wrong", [5, "text", [1], {1: 2}, {"a": object()}, {"a": float("nan")}])
def test_metadata_that_is_no_json_object_is_refused_at_construction(
    runtime: Runtime, wrong: Any
) -> None:
    with pytest.raises(InvalidInput, match="metadata"):
        runtime.session("s", metadata=wrong)


@pytest.mark.parametrize("wrong", [5, ["be brief"], {"a": 1}, "\ud800"])
def test_a_system_prompt_that_is_no_text_is_refused_at_construction(
    runtime: Runtime, wrong: Any
) -> None:
    with pytest.raises(InvalidInput):
        runtime.session("s", system=wrong)


@pytest.mark.parametrize("wrong", ["wait", 5, ""])
def test_a_way_of_being_busy_that_does_not_exist_is_refused_at_construction(
    runtime: Runtime, wrong: Any
) -> None:
    with pytest.raises(InvalidInput, match="queue, reject, interrupt"):
        runtime.session("s", busy=wrong)


@pytest.mark.parametrize("wrong", ["x", 5, [], object()])
def test_a_store_that_is_none_is_refused(wrong: Any) -> None:
    with pytest.raises(AgentError):
        Runtime(wrong)


async def test_a_format_that_does_not_exist_is_refused(session: Session) -> None:
    await say(session, "a")
    wrong: Any = "xml"
    with pytest.raises(InvalidInput, match="jsonl, json or markdown"):
        await session.export(wrong)


async def test_a_reason_and_metadata_of_a_turn_are_checked(session: Session) -> None:
    with pytest.raises(InvalidInput):
        async with session.turn("x", metadata={"a": object()}):
            pytest.fail("it cannot be stored")
    wrong: Any = object()
    with pytest.raises(InvalidInput):
        await session.end(wrong)
    assert await session.history() == []
    await say(session, "a")


async def test_messages_that_are_no_sequence_are_refused(session: Session) -> None:
    wrong: Any = 5
    with pytest.raises(InvalidInput):
        await session.send_messages(wrong)
    wrong = user("x")
    with pytest.raises(InvalidInput):
        await session.send_messages(wrong)
    assert await session.history() == []


async def test_a_session_without_an_agent_says_how_to_get_one(session: Session) -> None:
    with pytest.raises(UsageError, match="agent"):
        session.run("hello")


async def test_what_openai_writes_is_understood(session: Session) -> None:
    call = {"id": "x", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    await session.send_message({"role": "assistant", "content": None, "tool_calls": [call]})
    await session.send_message(Message.tool("done", "x"))
    [asked, answered] = await session.history()
    assert asked.tool_calls is not None
    assert asked.tool_calls[0].arguments == {"a": 1}
    assert answered["tool_call_id"] == "x"
