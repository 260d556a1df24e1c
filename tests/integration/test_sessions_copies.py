"""Sessions as data and back: nothing is duplicated and nothing leaves the audit."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from tests.integration.test_sessions_support import (
    Place,
    calls,
    paired,
    result,
    say,
    texts,
    user,
)

from tertulia import MemoryStore, Message, Runtime, Session, SQLiteStore
from tertulia.errors import AgentError, InvalidInput, SessionEnded, StoreTooNew

pytest_plugins = ("tests.integration.test_sessions_support",)


def _named(runtime: Runtime) -> Session:
    return Session(
        "s", "shop", "ann", {"m": 1}, {"ttl_days": 3}, system="Be brief.", runtime=runtime
    )


async def _talk(session: Session) -> None:
    await say(session, "a")
    await session.send_messages([calls("x"), result("x")])
    await session.send_message(
        {"role": "user", "content": [{"type": "text", "text": "b"}], "metadata": {"k": 1}}
    )
    await session.set_state("cart", ["apple"])
    await session.set_state("none", None)


async def test_the_data_is_json_and_says_what_the_session_is(runtime: Runtime) -> None:
    session = _named(runtime)
    await _talk(session)
    data = json.loads(json.dumps(session.to_dict()))
    assert data["version"] == 1
    assert data["session_id"] == "s"
    assert (data["app_name"], data["user_id"]) == ("shop", "ann")
    assert (data["metadata"], data["system"]) == ({"m": 1}, "Be brief.")
    assert data["retention"]["ttl_days"] == 3
    assert [message["role"] for message in data["messages"]] == [
        "user",
        "assistant",
        "tool",
        "user",
    ]
    assert data["state"] == {"cart": ["apple"], "none": None}
    events = await session.events()
    assert data["head"]["seq"] == events[-1].seq
    assert data["head"]["digest"] == events[-1].digest


async def test_an_unknown_session_is_created_from_its_data(place: Place) -> None:
    session = _named(place.open())
    await _talk(session)
    data = json.loads(json.dumps(session.to_dict()))
    elsewhere = Runtime(MemoryStore())
    copy = Session.from_dict(data, runtime=elsewhere)
    assert texts(await copy.history()) == texts(await session.history())
    assert [m.id for m in await copy.history()] == [m.id for m in await session.history()]
    assert copy.get_state("cart") == ["apple"]
    assert copy.state_keys() == ["cart", "none"]
    assert (copy.app_name, copy.user_id, copy.metadata) == ("shop", "ann", {"m": 1})
    assert copy.system == "Be brief."
    assert copy.retention == session.retention
    again = copy.to_dict()
    for name in ("session_id", "app_name", "user_id", "metadata", "retention", "system", "state"):
        assert again[name] == data[name]
    assert await copy.verify()
    await elsewhere.close()


async def test_data_with_the_same_head_is_the_same_conversation(runtime: Runtime) -> None:
    session = runtime.session("s")
    await _talk(session)
    before = await session.events()
    again = Session.from_dict(session.to_dict(), runtime=runtime)
    assert await again.events() == before
    await say(again, "c")
    assert texts(await session.history())[-1] == "c"


async def test_restoring_twice_duplicates_nothing(runtime: Runtime) -> None:
    data = {"session_id": "s", "messages": [user("a"), user("b")], "state": {"k": 1}}
    for _ in range(3):
        session = Session.from_dict(data, runtime=runtime)
        assert texts(await session.history()) == ["a", "b"]
        assert session.get_state("k") == 1
    assert len(await runtime.session("s").events(types="message.added")) == 2


async def test_older_data_takes_the_visible_history_back_by_events(runtime: Runtime) -> None:
    session = runtime.session("s")
    await say(session, "a", "b")
    await session.set_state("k", "old")
    data = session.to_dict()
    await say(session, "c", "d")
    await session.set_state("k", "new")
    await session.set_state("other", 1)
    before = await session.events()
    restored = Session.from_dict(data, runtime=runtime)
    assert texts(await restored.history()) == ["a", "b"]
    assert restored.get_state("k") == "old"
    assert restored.state_keys() == ["k"]
    assert (await restored.events())[: len(before)] == before


async def test_diverged_data_becomes_the_visible_history(runtime: Runtime) -> None:
    session = runtime.session("s")
    await say(session, "a", "b", "c")
    data = session.to_dict()
    data["messages"] = [*data["messages"][:2], user("x"), user("y")]
    data["head"] = None
    restored = Session.from_dict(data, runtime=runtime)
    assert texts(await restored.history()) == ["a", "b", "x", "y"]
    data["messages"] = [user("new")]
    assert texts(await Session.from_dict(data, runtime=runtime).history()) == ["new"]
    data["messages"] = []
    assert await Session.from_dict(data, runtime=runtime).history() == []


async def test_data_that_parts_inside_a_turn_duplicates_nothing(runtime: Runtime) -> None:
    session = runtime.session("s")
    async with session.turn("question") as turn:
        await turn.add_message(calls("x"))
        await turn.tool_called("x", "charge", effect="none")
        await turn.tool_returned("x", result("x"))
        await turn.add_message(Message.assistant("answer"))
    data = session.to_dict()
    data["head"] = None
    data["messages"][-1]["content"] = "another answer"
    restored = Session.from_dict(data, runtime=runtime)
    history = await restored.history()
    assert texts(history) == ["question", "", "done", "another answer"]
    assert paired(history)


async def test_data_of_a_pruned_session_that_diverged_brings_nothing_back(
    runtime: Runtime,
) -> None:
    session = runtime.session("s")
    await say(session, *"abcdef")
    await session.prune("keep_last_3")
    data = session.to_dict()
    data["head"] = None
    data["messages"] = [*data["messages"][:2], user("x")]
    restored = Session.from_dict(data, runtime=runtime)
    assert texts(await restored.history()) == ["d", "e", "x"]


async def test_empty_data_is_a_new_session(runtime: Runtime) -> None:
    session = Session.from_dict({}, runtime=runtime)
    assert session.id
    assert await session.history() == []
    await say(session, "a")
    assert texts(await session.history()) == ["a"]


async def test_data_of_a_session_that_was_never_used_has_what_it_was_given(
    runtime: Runtime,
) -> None:
    session = runtime.session("s", messages=[Message.user("q")], metadata={"k": 1})
    data = session.to_dict()
    assert [message["content"] for message in data["messages"]] == ["q"]
    assert data["head"] is None
    assert await runtime.sessions() == []


async def test_a_running_turn_is_not_in_the_data(runtime: Runtime) -> None:
    session = runtime.session("s")
    await say(session, "a")
    async with session.turn("b"):
        data = session.to_dict()
    assert [message["content"] for message in data["messages"]] == ["a"]


async def test_an_ended_session_is_not_changed_by_its_older_data(runtime: Runtime) -> None:
    session = runtime.session("s")
    await say(session, "a")
    data = session.to_dict()
    await session.end()
    with pytest.raises(SessionEnded):
        Session.from_dict(data, runtime=runtime)


@pytest.mark.parametrize(
    "data",
    [
        {"messages": "text"},
        {"messages": [{"role": "nobody", "content": "x"}]},
        {"messages": [result("x")]},
        {"session_id": 5},
        {"session_id": ""},
        {"state": []},
        {"state": {"": 1}},
        {"metadata": 5},
        {"retention": {"ttl": 5}},
        {"version": "two"},
        [],
        None,
        5,
    ],
)
def test_data_that_is_no_session_is_refused_and_nothing_is_written(place: Place, data: Any) -> None:
    runtime = place.open()
    with pytest.raises(InvalidInput):
        Session.from_dict(data, runtime=runtime)
    assert asyncio.run(runtime.sessions()) == []


def test_data_of_a_newer_version_is_refused(runtime: Runtime) -> None:
    with pytest.raises(StoreTooNew) as refused:
        Session.from_dict({"version": 99}, runtime=runtime)
    assert isinstance(refused.value, AgentError)


def test_fields_that_are_not_known_are_left_alone(runtime: Runtime) -> None:
    data = {"session_id": "s", "messages": [user("a")], "provider": "openai", "usage": 5}
    session = Session.from_dict(data, runtime=runtime)
    assert texts(session.messages) == ["a"]


def test_a_store_of_four_methods_keeps_the_data_and_shares_nothing(place: Place) -> None:
    session = place.open().session("s")
    session.add_message(user("a"))
    store = SQLiteStore(place.file) if place.kind == "sqlite" else MemoryStore()
    data = session.to_dict()
    store.save("s", data)
    data["messages"].append("changed")
    loaded = store.load("s")
    assert loaded is not None
    assert [message["content"] for message in loaded["messages"]] == ["a"]
    loaded["messages"].clear()
    assert store.load("s") != loaded
    assert store.exists("s")
    assert store.list_sessions() == ["s"]
    assert store.delete("s")
    assert not store.delete("s")
    assert store.load("s") is None
    if isinstance(store, SQLiteStore):
        store.close_now()
