"""Sessions: opening, saying, reading, and what two objects of one id are."""

from __future__ import annotations

from typing import Any

import pytest
from tests.integration.test_sessions_support import (
    Place,
    say,
    texts,
    user,
)

from tertulia import Message, Runtime, Session
from tertulia.errors import AccessDenied, SessionEnded, SessionExists, SessionNotFound

pytest_plugins = ("tests.integration.test_sessions_support",)


async def test_what_was_said_is_in_the_history_in_order(session: Session) -> None:
    await say(session, "one", "two")
    await session.send_message({"role": "assistant", "content": "three"})
    history = await session.history()
    assert [(m.role, m.text) for m in history] == [
        ("user", "one"),
        ("user", "two"),
        ("assistant", "three"),
    ]
    assert [m["role"] for m in history] == ["user", "user", "assistant"]


async def test_a_stored_message_has_its_position_its_time_and_an_id(session: Session) -> None:
    sent = await session.send_message(user("hello"))
    assert sent.seq == 2
    assert sent.timestamp is not None
    assert sent.timestamp.utcoffset() is not None
    assert sent.id
    assert await session.history() == [sent]


async def test_making_a_session_writes_nothing(runtime: Runtime) -> None:
    session = runtime.session("quiet", metadata={"a": 1})
    assert await session.history() == []
    assert await session.events() == []
    assert session.get_state("k") is None
    assert await runtime.sessions() == []


async def test_a_session_without_an_id_gets_one_of_its_own(runtime: Runtime) -> None:
    first, second = runtime.session(), runtime.session()
    assert first.id != second.id
    assert first.session_id == first.id


async def test_two_objects_of_one_id_are_the_same_conversation(runtime: Runtime) -> None:
    first, second = runtime.session("one"), runtime.session("one")
    await say(first, "a")
    await say(second, "b")
    assert texts(await first.history()) == ["a", "b"]
    assert second.messages == first.messages


async def test_the_same_id_in_two_apps_are_two_conversations(runtime: Runtime) -> None:
    first = runtime.session("one", app_name="first")
    second = runtime.session("one", app_name="second")
    third = runtime.session("one")
    await say(first, "a")
    await say(second, "b")
    assert texts(await first.history()) == ["a"]
    assert texts(await second.history()) == ["b"]
    assert await third.history() == []
    listed = await runtime.sessions(app_name="second")
    assert [(info.id, info.app_name) for info in listed] == [("one", "second")]


async def test_several_messages_go_in_together_or_not_at_all(session: Session) -> None:
    sent = await session.send_messages([user("a"), user("b"), user("c")])
    assert texts(sent) == ["a", "b", "c"]
    with pytest.raises(ValueError, match="no tool call 'x' is open"):
        await session.send_messages(
            [user("d"), {"role": "tool", "tool_call_id": "x", "content": "?"}]
        )
    assert texts(await session.history()) == ["a", "b", "c"]


async def test_sending_no_messages_writes_nothing(session: Session) -> None:
    assert await session.send_messages([]) == []
    assert await session.events() == []


async def test_messages_of_the_constructor_are_the_first_ones(runtime: Runtime) -> None:
    session = runtime.session("s", messages=[Message.user("q"), Message.assistant("a")])
    await say(session, "next")
    assert texts(await session.history()) == ["q", "a", "next"]


async def test_messages_for_an_id_that_exists_are_an_error(runtime: Runtime) -> None:
    await say(runtime.session("s"), "here")
    again = runtime.session("s", messages=[Message.user("q")])
    with pytest.raises(SessionExists):
        await say(again, "more")
    assert texts(await runtime.session("s").history()) == ["here"]


async def test_a_session_with_prepared_messages_shows_them_before_the_first_write(
    runtime: Runtime,
) -> None:
    session = runtime.session("s", messages=[Message.user("q"), Message.assistant("a")])
    assert texts(session.messages) == ["q", "a"]


async def test_metadata_is_merged_and_nothing_given_leaves_it(runtime: Runtime) -> None:
    await say(runtime.session("s", metadata={"a": 1, "b": 1}), "x")
    await say(runtime.session("s", metadata={"b": 2}), "y")
    await say(runtime.session("s"), "z")
    assert runtime.session("s").metadata == {"a": 1, "b": 2}


async def test_the_system_prompt_is_stored_restored_and_replaceable(place: Place) -> None:
    await say(place.open().session("s", system="Be brief."), "x")
    again = place.open()
    assert again.session("s").system == "Be brief."
    await say(again.session("s", system="Be kind."), "y")
    assert again.session("s").system == "Be kind."
    assert texts(await again.session("s").history()) == ["x", "y"]


async def test_a_changed_setting_is_in_the_audit(runtime: Runtime) -> None:
    await say(runtime.session("s"), "x")
    await say(runtime.session("s", metadata={"a": 1}, retention={"ttl_days": 3}), "y")
    kinds = [event.type for event in await runtime.session("s").events()]
    assert kinds.count("session.changed") == 1
    assert kinds.count("retention.set") == 1


# -- owners


async def test_another_user_is_refused_and_sees_nothing(runtime: Runtime) -> None:
    await say(runtime.session("s", user_id="ann"), "secret")
    eve = runtime.session("s", user_id="eve")
    with pytest.raises(AccessDenied) as refused:
        await eve.history()
    assert refused.value.session_id == "s"
    assert isinstance(refused.value, PermissionError)
    for attempt in (
        eve.events(),
        eve.send_message(user("hi")),
        eve.prune("keep_last_1"),
        eve.rewind(1),
        eve.verify(),
        eve.export(),
        eve.end(),
        eve.delete(),
        eve.cursor(),
        eve.update_state("k", lambda old: old),
        eve.hold("mine"),
    ):
        with pytest.raises(AccessDenied):
            await attempt
    assert texts(await runtime.session("s").history()) == ["secret"]


def test_another_user_is_refused_at_every_synchronous_door(runtime: Runtime) -> None:
    owner = runtime.session("s", user_id="ann")
    owner.add_message(user("secret"))
    owner.set_state("k", "v")
    eve = runtime.session("s", user_id="eve")
    with pytest.raises(AccessDenied):
        _ = eve.messages
    with pytest.raises(AccessDenied):
        _ = eve.metadata
    with pytest.raises(AccessDenied):
        eve.add_message(user("hi"))
    with pytest.raises(AccessDenied):
        eve.get_state("k")
    with pytest.raises(AccessDenied):
        eve.set_state("k", "evil")
    with pytest.raises(AccessDenied):
        eve.fork("mine")
    with pytest.raises(AccessDenied):
        eve.to_dict()
    with pytest.raises(AccessDenied):
        eve.clear()
    assert owner.get_state("k") == "v"
    assert owner.messages[-1].text == "secret"


async def test_a_state_write_of_another_user_never_reaches_the_session(runtime: Runtime) -> None:
    owner = runtime.session("s", user_id="ann")
    await say(owner, "secret")
    eve = runtime.session("s", user_id="eve")
    with pytest.raises(AccessDenied):
        await eve.set_state("k", "evil")
    await say(owner, "more")
    assert owner.get_state("k") is None


async def test_another_user_does_not_see_state_that_is_yet_to_be_written(
    runtime: Runtime,
) -> None:
    owner = runtime.session("s", user_id="ann")
    await say(owner, "hello")
    owner.set_state("k", "secret")
    with pytest.raises(AccessDenied):
        runtime.session("s", user_id="eve").get_state("k")


async def test_trusted_code_opens_any_session_and_knows_its_owner(runtime: Runtime) -> None:
    await say(runtime.session("s", user_id="ann"), "x")
    trusted = runtime.session("s")
    assert texts(await trusted.history()) == ["x"]
    assert trusted.user_id == "ann"


# -- listing and getting


async def test_sessions_are_listed_in_the_order_of_their_creation_page_by_page(
    runtime: Runtime,
) -> None:
    for name in "abcde":
        await say(runtime.session(name, user_id="ann" if name in "ace" else None), name)
    first = await runtime.sessions(limit=2)
    second = await runtime.sessions(limit=2, after=first[-1])
    third = await runtime.sessions(limit=2, after=second[-1])
    assert [info.id for info in (*first, *second, *third)] == list("abcde")
    assert await runtime.sessions(after=third[-1]) == []
    assert [info.id for info in await runtime.sessions(user_id="ann")] == ["a", "c", "e"]
    assert await runtime.sessions(limit=0) == []


async def test_getting_a_session_that_is_not_there_is_an_error(runtime: Runtime) -> None:
    with pytest.raises(SessionNotFound) as missing:
        await runtime.get("nobody")
    assert missing.value.session_id == "nobody"
    await say(runtime.session("s", user_id="ann"), "x")
    assert texts(await (await runtime.get("s")).history()) == ["x"]
    with pytest.raises(AccessDenied):
        await runtime.get("s", user_id="eve")


# -- ending, going on, deleting


async def test_an_ended_session_can_be_read_and_refuses_writes_until_reopened(
    session: Session,
) -> None:
    await say(session, "a")
    await session.set_state("k", 1)
    await session.end("bye")
    assert texts(await session.history()) == ["a"]
    assert session.get_state("k") is None
    for attempt in (
        session.send_message(user("b")),
        session.update_state("k", lambda _: 2),
        session.rewind(1),
        session.prune("keep_last_1"),
    ):
        with pytest.raises(SessionEnded, match="reopen"):
            await attempt
    await session.reopen()
    await say(session, "b")
    assert texts(await session.history()) == ["a", "b"]
    assert session.get_state("k") is None
    kinds = [event.type for event in await session.events()]
    assert "session.ended" in kinds
    assert "state.deleted" in kinds
    assert "session.reopened" in kinds


async def test_ending_also_clears_state_that_was_yet_to_be_written(session: Session) -> None:
    await say(session, "a")
    session.set_state("k", 1)
    await session.end()
    await session.reopen()
    assert session.get_state("k") is None


async def test_reopening_what_is_open_changes_nothing(session: Session) -> None:
    await say(session, "a")
    before = await session.events()
    await session.reopen()
    assert await session.events() == before


async def test_ending_keeps_user_and_app_state(runtime: Runtime) -> None:
    session = runtime.session("s", user_id="ann")
    await session.set_state("u", 1, scope="user")
    await session.set_state("a", 2, scope="app")
    await session.end()
    other = runtime.session("t", user_id="ann")
    assert other.get_state("u", scope="user") == 1
    assert other.get_state("a", scope="app") == 2


async def test_a_deleted_session_is_gone_and_its_id_is_free(runtime: Runtime) -> None:
    session = runtime.session("s")
    await say(session, "a")
    await session.set_state("k", 1)
    await session.delete()
    assert await runtime.sessions() == []
    assert await session.history() == []
    assert session.get_state("k") is None
    await say(session, "b")
    assert texts(await session.history()) == ["b"]
    with pytest.raises(SessionNotFound):
        await runtime.session("never").delete()


async def test_a_deletion_leaves_a_receipt(runtime: Runtime) -> None:
    session = runtime.session("s")
    await say(session, "a")
    receipt = await session.delete()
    assert receipt.type == "session.deleted"
    kept = await runtime.store.receipts()
    assert [one.body for one in kept] == [receipt.body]
    assert b'"s"' not in receipt.body


# -- nothing handed out is an alias


def _nested() -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "text", "text": "a"}], "metadata": {"k": [1]}}


async def test_changing_what_was_handed_in_or_out_changes_nothing_stored(
    session: Session,
) -> None:
    mine = _nested()
    sent = await session.send_message(mine)
    mine["content"][0]["text"] = "changed"
    mine["metadata"]["k"].append(2)
    assert isinstance(sent.content, list)
    sent.content[0]["text"] = "changed"
    for message in (*await session.history(), *session.messages):
        assert message.text == "a"
        assert message.metadata == {"k": [1]}
        assert isinstance(message.content, list)
        message.content[0]["text"] = "changed"
    event = (await session.events(types="message.added"))[0]
    assert event.body is not None
    event.body["content"] = "changed"
    assert texts(await session.history()) == ["a"]


async def test_a_message_value_shares_nothing_with_what_is_stored(session: Session) -> None:
    message = Message.assistant(
        "", tool_calls=[{"id": "c", "name": "f", "arguments": {"list": [1]}}]
    )
    await session.send_message(message)
    assert message.tool_calls is not None
    message.tool_calls[0].arguments["list"].append(2)
    [stored] = await session.history()
    assert stored.tool_calls is not None
    assert stored.tool_calls[0].arguments == {"list": [1]}


async def test_metadata_and_retention_are_handed_out_as_copies(runtime: Runtime) -> None:
    mine: dict[str, Any] = {"k": [1]}
    session = runtime.session("s", metadata=mine, retention={"ttl_days": 9})
    mine["k"].append(2)
    session.metadata["k"].append(3)
    policy = session.retention
    assert policy is not None
    policy["ttl_days"] = 1
    await say(session, "x")
    session.metadata["k"].append(4)
    stored = session.retention
    assert stored is not None
    assert stored["ttl_days"] == 9
    assert session.metadata == {"k": [1]}
    saved = session.to_dict()
    saved["metadata"]["k"].append(5)
    saved["messages"][0]["content"] = "changed"
    assert session.metadata == {"k": [1]}
    assert texts(await session.history()) == ["x"]
