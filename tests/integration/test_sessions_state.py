"""Scoped state: seen at once, durable in order, shared where its scope says so."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import anyio
import pytest
from tests.integration.test_sessions_support import (
    Place,
    broken,
    say,
    texts,
)

from tertulia import Runtime, Session
from tertulia.errors import InvalidInput, ScopeError, SessionEnded

pytest_plugins = ("tests.integration.test_sessions_support",)


def test_state_set_outside_a_loop_is_durable_when_the_call_returns(place: Place) -> None:
    place.open().session("s").set_state("k", {"a": [1]})
    assert place.open().session("s").get_state("k") == {"a": [1]}


async def test_state_set_inside_a_loop_is_seen_at_once_by_every_object(runtime: Runtime) -> None:
    runtime.session("s").set_state("k", 1)
    assert runtime.session("s").get_state("k") == 1
    assert runtime.session("s").state_keys() == ["k"]
    runtime.session("s").delete_state("k")
    assert runtime.session("s").get_state("k", "gone") == "gone"


async def test_state_set_inside_a_loop_is_written_before_the_next_awaited_call(
    place: Place,
) -> None:
    session = place.open().session("s")
    pending = session.set_state("k", 1)
    session.set_state("k", 2)
    assert not pending.done
    await say(session, "x")
    assert pending.done
    assert place.open().session("s").get_state("k") == 2
    kinds = [event.type for event in await session.events()]
    assert kinds == ["session.created", "state.set", "state.set", "message.added"]


async def test_awaiting_what_set_state_returns_makes_it_durable(place: Place) -> None:
    session = place.open().session("s")
    await session.set_state("k", 1)
    assert place.open().session("s").get_state("k") == 1
    await session.delete_state("k")
    assert place.open().session("s").get_state("k") is None


@pytest.mark.parametrize("how", ["flush", "close", "exit", "runtime"])
async def test_state_left_to_be_written_is_written_at_flush_close_and_exit(
    place: Place, how: str
) -> None:
    runtime = place.open()
    if how == "exit":
        async with runtime.session("s") as session:
            session.set_state("k", 1)
    else:
        session = runtime.session("s")
        session.set_state("k", 1)
        if how == "flush":
            await session.flush()
        elif how == "close":
            await session.close()
        else:
            await runtime.flush()
    assert place.open().session("s").get_state("k") == 1


async def test_state_is_written_although_nobody_holds_the_session_any_more(
    place: Place,
) -> None:
    runtime = place.open()
    runtime.session("s").set_state("k", 1)
    await runtime.flush()
    assert place.open().session("s").get_state("k") == 1


@pytest.mark.parametrize("value", [0, False, "", [], {}, None, 0.0])
async def test_falsy_values_are_values(session: Session, value: Any) -> None:
    await session.set_state("k", value)
    assert session.get_state("k", "default") == value
    assert session.state_keys() == ["k"]
    assert "k" in session.state


async def test_what_is_handed_out_and_taken_in_are_copies(session: Session) -> None:
    mine = {"list": [1]}
    session.set_state("k", mine)
    mine["list"].append(2)
    session.get_state("k")["list"].append(3)
    assert session.get_state("k") == {"list": [1]}
    await session.flush()
    session.get_state("k")["list"].append(4)
    session.state["k"]["list"].append(5)
    assert session.get_state("k") == {"list": [1]}
    session.set_state("t", mine, scope="temp")
    mine["list"].append(6)
    session.get_state("t", scope="temp")["list"].append(7)
    assert session.get_state("t", scope="temp") == {"list": [1, 2]}


async def test_state_is_a_mapping_with_the_scopes_beside_it(runtime: Runtime) -> None:
    session = runtime.session("s", user_id="ann", app_name="shop")
    session.state["cart"] = ["apple"]
    session.state.user["language"] = "es"
    session.state.app["version"] = 2
    session.state.temp["step"] = 1
    assert dict(session.state) == {"cart": ["apple"]}
    assert dict(session.state.user) == {"language": "es"}
    assert dict(session.state.app) == {"version": 2}
    assert dict(session.state.temp) == {"step": 1}
    del session.state["cart"]
    assert len(session.state) == 0
    with pytest.raises(KeyError):
        _ = session.state["cart"]
    with pytest.raises(KeyError):
        del session.state["cart"]
    await session.flush()
    assert session.state.user["language"] == "es"


# -- shared scopes


async def test_user_state_is_shared_by_the_sessions_of_a_user_in_an_app(runtime: Runtime) -> None:
    first = runtime.session("a", user_id="ann", app_name="shop")
    await first.set_state("language", "es", scope="user")
    await say(runtime.session("b", user_id="ann", app_name="shop"), "x")
    second = runtime.session("b", app_name="shop")
    assert second.get_state("language", scope="user") == "es"
    for other in (
        runtime.session("c", user_id="bob", app_name="shop"),
        runtime.session("d", user_id="ann", app_name="bank"),
        runtime.session("e", user_id="ann"),
    ):
        await say(other, "x")
        assert other.get_state("language", scope="user") is None


async def test_a_new_session_of_a_user_sees_the_user_state_before_its_first_write(
    runtime: Runtime,
) -> None:
    first = runtime.session("a", user_id="ann")
    await first.set_state("language", "es", scope="user")
    await first.set_state("version", 2, scope="app")
    second = runtime.session("b", user_id="ann")
    assert second.get_state("language", scope="user") == "es"
    assert second.get_state("version", scope="app") == 2
    assert second.state_keys("user") == ["language"]
    assert second.state_keys("app") == ["version"]


async def test_app_state_is_shared_by_all_sessions_of_an_app(runtime: Runtime) -> None:
    first = runtime.session("a", app_name="shop", user_id="ann")
    await first.set_state("version", 2, scope="app")
    second = runtime.session("b", app_name="shop")
    await say(second, "x")
    other = runtime.session("c")
    await say(other, "x")
    assert second.get_state("version", scope="app") == 2
    assert other.get_state("version", scope="app") is None


async def test_shared_state_is_seen_at_once_by_other_sessions_of_the_process(
    runtime: Runtime,
) -> None:
    first = runtime.session("a", user_id="ann")
    second = runtime.session("b", user_id="ann")
    await say(first, "x")
    await say(second, "x")
    first.set_state("k", 1, scope="user")
    assert second.get_state("k", scope="user") == 1
    second.set_state("k", 2, scope="user")
    assert first.get_state("k", scope="user") == 2
    await second.flush()
    await first.flush()
    assert second.state_keys("user") == ["k"]


async def test_shared_state_is_seen_by_another_worker_at_once(lasting: Place) -> None:
    first = lasting.open().session("a", user_id="ann")
    second = lasting.open().session("b", user_id="ann")
    await say(second, "x")
    for number in range(3):
        await first.set_state("k", number, scope="user")
        assert second.get_state("k", scope="user") == number


async def test_user_scope_without_a_user_is_a_typed_error(session: Session) -> None:
    await say(session, "x")
    with pytest.raises(ScopeError, match="needs user_id"):
        session.set_state("k", 1, scope="user")
    with pytest.raises(ScopeError):
        session.get_state("k", scope="user")
    with pytest.raises(ScopeError):
        await session.update_state("k", lambda _: 1, scope="user")
    await say(session, "y")
    assert texts(await session.history()) == ["x", "y"]


async def test_a_user_named_for_a_session_without_an_owner_poisons_nothing(
    place: Place, runtime: Runtime
) -> None:
    await say(runtime.session("s"), "x")
    session = runtime.session("s", user_id="ann")
    with pytest.raises(ScopeError):
        await session.set_state("k", 1, scope="user")
    await say(runtime.session("s"), "y")
    assert texts(await runtime.session("s").history()) == ["x", "y"]


async def test_the_writing_session_has_the_audit_entry_with_the_version(runtime: Runtime) -> None:
    session = runtime.session("s", user_id="ann")
    await session.set_state("k", 1, scope="user")
    await session.set_state("k", 2, scope="user")
    entries = await session.events(types="state.set")
    assert [(e.body or {})["version"] for e in entries] == [1, 2]
    assert [(e.body or {})["value"] for e in entries] == [1, 2]


# -- updates


async def test_an_update_is_atomic_between_tasks(session: Session) -> None:
    async def add() -> None:
        async def slowly(value: int) -> int:
            await asyncio.sleep(0)
            return value + 1

        await session.update_state("n", slowly, default=0)

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(add)
    assert session.get_state("n") == 20


@pytest.mark.parametrize("scope", ["user", "app"])
async def test_an_update_that_was_overtaken_begins_again(runtime: Runtime, scope: str) -> None:
    first = runtime.session("a", user_id="ann")
    second = runtime.session("b", user_id="ann")
    overtaken: list[int] = []

    async def slowly(value: int) -> int:
        if not overtaken:
            overtaken.append(value)
            await second.update_state("n", lambda other: other + 1, scope=scope, default=0)
        return value + 1

    await first.update_state("n", slowly, scope=scope, default=0)
    assert first.get_state("n", scope=scope) == 2


@pytest.mark.parametrize("scope", ["user", "app"])
async def test_an_update_of_shared_state_is_atomic_between_sessions(
    runtime: Runtime, scope: str
) -> None:
    async def add(name: str) -> None:
        session = runtime.session(name, user_id="ann")
        for _ in range(10):
            await session.update_state("n", lambda value: value + 1, scope=scope, default=0)

    async with anyio.create_task_group() as group:
        for name in "abc":
            group.start_soon(add, name)
    assert runtime.session("a", user_id="ann").get_state("n", scope=scope) == 30


@pytest.mark.parametrize("scope", ["session", "user", "app"])
def test_an_update_is_atomic_between_two_workers(lasting: Place, scope: str) -> None:
    def add() -> None:
        session = lasting.open().session("s", user_id="ann")

        async def run() -> None:
            for _ in range(10):
                await session.update_state("n", lambda value: value + 1, scope=scope, default=0)

        asyncio.run(run())

    threads = [threading.Thread(target=add) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lasting.open().session("s").get_state("n", scope=scope) == 20


async def test_an_update_builds_on_what_is_yet_to_be_written(session: Session) -> None:
    session.set_state("n", 5)
    assert await session.update_state("n", lambda value: value + 1) == 6
    assert session.get_state("n") == 6


async def test_an_update_that_fails_changes_nothing(session: Session) -> None:
    await session.set_state("n", 1)

    def fails(_: int) -> int:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        await session.update_state("n", fails)
    with pytest.raises(InvalidInput):
        await session.update_state("n", lambda _: {1})
    assert session.get_state("n") == 1
    await say(session, "x")


async def test_an_update_gets_a_copy_and_keeps_none(session: Session) -> None:
    kept: list[list[int]] = []

    def append(value: list[int]) -> list[int]:
        value.append(1)
        kept.append(value)
        return value

    given = await session.update_state("k", append, default=[])
    kept[0].append(2)
    given.append(3)
    assert session.get_state("k") == [1]


async def test_an_update_of_shared_state_in_a_turn_survives_its_failure(runtime: Runtime) -> None:
    session = runtime.session("s", user_id="ann")
    async with broken(session, "x"):
        await session.update_state("n", lambda value: value + 1, scope="user", default=0)
        await session.update_state("m", lambda value: value + 1, default=0)
    assert session.get_state("n", scope="user") == 1
    assert session.get_state("m") is None


async def test_an_update_in_a_turn_builds_on_what_the_turn_has_set(runtime: Runtime) -> None:
    session = runtime.session("s", user_id="ann")
    async with session.turn("x"):
        session.set_state("n", 5, scope="user")
        session.set_state("m", 5)
        assert await session.update_state("m", lambda value: value + 1, default=0) == 6
        assert await session.update_state("n", lambda v: v + 1, scope="user", default=0) == 6
    assert session.get_state("m") == 6
    assert session.get_state("n", scope="user") == 6


async def test_shared_state_set_in_two_turns_at_once_fails_neither(runtime: Runtime) -> None:
    first = runtime.session("a", user_id="ann")
    second = runtime.session("b", user_id="ann")
    async with first.turn("x"), second.turn("y"):
        first.set_state("k", 1, scope="user")
        second.set_state("k", 2, scope="user")
    await first.flush()
    assert first.get_state("k", scope="user") == 1
    assert second.get_state("k", scope="user") == 1


# -- what fails


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), {1: "a"}, {"a": {1, 2}}, b"bytes", object(), "\ud800"],
)
async def test_a_value_that_json_cannot_carry_is_refused_at_once(
    session: Session, value: Any
) -> None:
    for scope in ("session", "temp"):
        with pytest.raises(InvalidInput):
            session.set_state("k", value, scope=scope)
    assert session.get_state("k", "unset") == "unset"
    assert await session.events() == []


@pytest.mark.parametrize("key", ["", "x" * 257, "a\0b", 5, None, "\ud800"])
async def test_a_key_that_cannot_be_is_refused(session: Session, key: Any) -> None:
    for attempt in (
        lambda: session.set_state(key, 1),
        lambda: session.get_state(key),
        lambda: session.delete_state(key),
    ):
        with pytest.raises(InvalidInput):
            attempt()
    with pytest.raises(InvalidInput):
        await session.update_state(key, lambda _: 1)
    assert await session.events() == []


async def test_a_value_that_is_too_large_is_refused(session: Session) -> None:
    with pytest.raises(InvalidInput, match="at most 262,144"):
        session.set_state("k", "x" * 262_144)
    await session.set_state("k", "x" * 262_000)


async def test_a_scope_that_does_not_exist_is_refused(session: Session) -> None:
    with pytest.raises(ScopeError, match="session, user, app, temp"):
        session.set_state("k", 1, scope="global")
    with pytest.raises(ScopeError):
        session.get_state("k", scope="global")
    with pytest.raises(ScopeError):
        session.state_keys("global")


async def test_a_write_that_fails_raises_at_the_next_awaited_call_and_only_there(
    place: Place, session: Session
) -> None:
    await say(session, "x")
    await session.end()
    session.set_state("k", 1)
    with pytest.raises(SessionEnded):
        await session.flush()
    await session.flush()
    await session.reopen()
    assert session.get_state("k") is None


def test_a_write_that_was_refused_is_not_seen(place: Place, session: Session) -> None:
    session.set_state("k", "old")
    asyncio.run(session.end())
    with pytest.raises(SessionEnded):
        session.set_state("k", "new")
    assert session.get_state("k") is None
    asyncio.run(session.reopen())
    assert session.get_state("k") is None


async def test_deleting_what_is_not_set_is_no_error(session: Session) -> None:
    await session.delete_state("never")
    assert session.state_keys() == []


async def test_the_audit_says_what_was_set_and_deleted(session: Session) -> None:
    await session.set_state("k", [1])
    await session.delete_state("k")
    entries = await session.events(types=["state.set", "state.deleted"])
    assert [(entry.type, (entry.body or {}).get("value")) for entry in entries] == [
        ("state.set", [1]),
        ("state.deleted", None),
    ]
