"""Where the system behind page 003 breaks, and this one must not: one test for each trap."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from tertulia import Agent, Entity, MemoryStore, Runtime, SQLiteStore, query, tool
from tertulia.clock import to_datetime
from tertulia.errors import (
    InvalidInput,
    ModelError,
    RetentionRefused,
    ScopeError,
    SessionEnded,
    SessionNotFound,
    UsageError,
    VersionConflict,
)
from tertulia.testing import FrozenClock, ScriptedModel, call


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


# -- entities


class Chat(Entity):
    """An entity as its users write it: methods that call methods, lists in its state."""

    async def add(self, text: str) -> int:
        self.state.setdefault("messages", []).append({"text": text, "tags": ["new"]})
        return len(self.state["messages"])

    async def chat(self, text: str) -> int:
        await self.add(text)
        return await self.add(f"you said {text}")

    async def add_and_fail(self, text: str) -> None:
        self.state["messages"].append({"text": text, "tags": []})
        self.state["messages"][0]["tags"].append("spoiled")
        raise LookupError(text)

    @query
    async def all(self) -> list[dict[str, Any]]:
        return self.state.get("messages", [])

    @query
    async def writes_though_it_reads(self) -> None:
        self.state["messages"] = []

    @query
    async def changes_though_it_reads(self) -> None:
        self.state["messages"].clear()


async def test_an_entity_that_calls_itself_does_not_wait_for_itself(runtime: Runtime) -> None:
    chat = Chat("c", runtime=runtime)
    assert await asyncio.wait_for(chat.chat("Hi"), 10) == 2
    assert [each["text"] for each in await chat.all()] == ["Hi", "you said Hi"]


async def test_a_method_that_fails_takes_back_what_it_changed_deep_inside(
    runtime: Runtime,
) -> None:
    chat = Chat("c", runtime=runtime)
    await chat.add("one")
    with pytest.raises(LookupError, match="two"):
        await chat.add_and_fail("two")
    assert await Chat("c", runtime=runtime).all() == [{"text": "one", "tags": ["new"]}]


async def test_what_a_method_returned_is_no_alias_of_the_state(runtime: Runtime) -> None:
    chat = Chat("c", runtime=runtime)
    await chat.add("one")
    given = await chat.all()
    given[0]["tags"].append("spoiled")
    given.clear()
    assert await chat.all() == [{"text": "one", "tags": ["new"]}]


async def test_a_version_conflict_is_raised_and_the_update_is_not_lost(tmp_path: Path) -> None:
    first, second = (Runtime(SQLiteStore(tmp_path / "x.db")) for _ in range(2))
    inside, go_on = asyncio.Event(), asyncio.Event()

    class Slow(Entity):
        async def add(self, amount: int, *, wait: bool = False) -> int:
            self.state["sum"] = self.state.get("sum", 0) + amount
            if wait:
                inside.set()
                await go_on.wait()
            return self.state["sum"]

    slow = asyncio.ensure_future(Slow("s", runtime=first).add(1, wait=True))
    await inside.wait()
    assert await Slow("s", runtime=second).add(10) == 10
    go_on.set()
    with pytest.raises(VersionConflict):
        await slow
    assert await Slow("s", runtime=first).add(1) == 11
    await first.close()
    await second.close()


async def test_a_query_that_writes_is_refused_and_what_it_changed_in_place_is_not_kept(
    runtime: Runtime,
) -> None:
    chat = Chat("c", runtime=runtime)
    await chat.add("one")
    with pytest.raises(UsageError, match="query"):
        await chat.writes_though_it_reads()
    with suppress(UsageError):  # to refuse it is as good as to drop it
        await chat.changes_though_it_reads()
    assert len(await chat.all()) == 1


async def test_an_entity_needs_no_context_around_it_and_takes_arguments_by_place() -> None:
    async with Runtime(MemoryStore()):
        assert await Chat("c").add("one") == 1


# -- state


async def test_user_scope_is_shared_by_two_sessions_and_not_by_two_users(
    runtime: Runtime,
) -> None:
    one, two = (runtime.session(name, user_id="ann") for name in ("one", "two"))
    other = runtime.session("three", user_id="bob")
    await one.set_state("language", "es", scope="user")
    await one.set_state("rate", 2, scope="app")
    await one.set_state("cart", ["apple"])
    assert two.get_state("language", scope="user") == "es"
    assert other.get_state("language", scope="user") is None
    assert other.get_state("rate", scope="app") == 2
    assert two.get_state("cart") is None


async def test_user_scope_is_shared_by_two_processes(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    code = (
        "import sys\nfrom tertulia import Session\n"
        "Session('one', user_id='ann', store=sys.argv[1]).set_state('seen', 1, scope='user')\n"
    )
    async with Runtime(SQLiteStore(path)) as runtime:
        two = runtime.session("two", user_id="ann")
        assert two.get_state("seen", scope="user") is None
        command = [sys.executable, "-W", "error", "-c", code, f"sqlite:///{path}"]
        await asyncio.to_thread(subprocess.run, command, check=True, timeout=50)
        assert two.get_state("seen", scope="user") == 1


async def test_user_scope_without_a_user_says_so(runtime: Runtime) -> None:
    with pytest.raises(ScopeError):
        runtime.session("s").set_state("language", "es", scope="user")
    with pytest.raises(ScopeError):
        runtime.session("s").get_state("language", scope="galaxy")


async def test_temp_state_is_gone_after_its_turn(runtime: Runtime) -> None:
    seen: list[Any] = []

    @tool(read_only=True)
    def peek() -> str:
        """Peek."""
        seen.append(session.get_state("draft", scope="temp"))
        return "ok"

    model = ScriptedModel(call("peek"), "One.", call("peek"), "Two.")
    session = Agent(model=model, tools=[peek], runtime=runtime).session("s")
    session.set_state("draft", "x", scope="temp")
    await session.run_async("first")
    await session.run_async("second")
    assert seen == ["x", None]


async def test_session_state_is_cleared_when_the_session_ends(runtime: Runtime) -> None:
    session = runtime.session("s", user_id="ann")
    await session.set_state("cart", [1])
    await session.set_state("language", "es", scope="user")
    await session.end("done")
    assert session.get_state("cart") is None
    assert session.get_state("language", scope="user") == "es"
    with pytest.raises(SessionEnded):
        await session.send_message(user("more"))


async def test_get_state_takes_a_default_and_a_scope_in_any_order(runtime: Runtime) -> None:
    session = runtime.session("s", user_id="ann")
    assert session.get_state("k", 7) == session.get_state("k", scope="user", default=7) == 7


@pytest.mark.parametrize("value", [object(), {1, 2}, float("nan"), b"x", {1: 2}])
async def test_state_that_is_no_json_is_refused_at_once(value: Any, runtime: Runtime) -> None:
    session = runtime.session("s")
    with pytest.raises(InvalidInput):
        session.set_state("k", value)
    assert session.state_keys() == []


# -- pruning and retention


async def test_keep_last_50_keeps_the_last_50(runtime: Runtime) -> None:
    session = runtime.session("s", metadata={"a": 1})
    await session.send_messages([user(f"{n}") for n in range(60)])
    await session.set_state("k", 1)
    events = len(await session.events())
    report = await session.prune("keep_last_50")
    assert (report.hidden, report.kept) == (10, 50)
    assert [m.text for m in await session.history()] == [f"{n}" for n in range(10, 60)]
    assert len(await session.events()) == events + 1
    assert session.get_state("k") == 1
    assert (await session.history(at=60))[0].text == "0"
    assert await session.verify()


@pytest.mark.parametrize(
    ("strategy", "options"), [("keep_last_n", {"n": 3}), ("sliding_window", {"window_size": 3})]
)
async def test_the_other_names_of_a_window_work_as_well(
    strategy: str, options: dict[str, Any], runtime: Runtime
) -> None:
    session = runtime.session("s")
    await session.send_messages([user(f"{n}") for n in range(9)])
    await session.prune(strategy, **options)
    assert [m.text for m in await session.history()] == ["6", "7", "8"]


async def test_a_strategy_that_does_not_exist_is_refused(runtime: Runtime) -> None:
    session = runtime.session("s")
    for strategy in ("keep_last", "keep_last_", "keep_last_-1", "everything"):
        with pytest.raises(InvalidInput):
            await session.prune(strategy)


async def test_an_immutable_session_is_not_pruned_cleared_rewound_or_deleted(
    runtime: Runtime,
) -> None:
    session = runtime.session("s", retention={"immutable": True})
    await session.send_messages([user("one"), user("two")])
    with pytest.raises(RetentionRefused):
        await session.prune("keep_last_1")
    with pytest.raises(RetentionRefused):
        session.clear()
    with pytest.raises(RetentionRefused):
        await session.rewind(to=2)
    with pytest.raises(RetentionRefused):
        await session.delete()
    assert [m.text for m in await session.history()] == ["one", "two"]
    await session.send_message(user("three"))


async def test_a_history_never_grows_over_its_limit_however_long_it_goes_on(
    runtime: Runtime,
) -> None:
    model = ScriptedModel(*[f"answer {n}" for n in range(12)])
    agent = Agent(model=model, runtime=runtime)
    session = agent.session("s", retention={"max_messages": 6, "auto_prune": True})
    for number in range(12):
        await session.run_async(f"question {number}")
        assert len(await session.history()) <= 6
    assert (await session.history())[-1].text == "answer 11"


async def test_days_go_on_over_a_restart(tmp_path: Path) -> None:
    path, clock = tmp_path / "x.db", FrozenClock()
    async with Runtime(SQLiteStore(path), clock=clock) as runtime:
        for name, days in (("short", 7), ("long", 90)):
            session = runtime.session(name, retention={"ttl_days": days, "auto_prune": True})
            await session.send_message(user("Hi"))
    clock.advance(days=8)
    async with Runtime(SQLiteStore(path), clock=clock) as runtime:
        assert [(s.session_id, s.action) for s in await runtime.sweep()] == [("short", "delete")]
        assert [info.id for info in await runtime.sessions()] == ["long"]
        with pytest.raises(SessionNotFound):
            await runtime.get("short")


async def test_days_over_are_listed_where_nothing_is_to_happen_by_itself(
    runtime: Runtime, clock: FrozenClock
) -> None:
    session = runtime.session("s", retention={"ttl_days": 7})
    await session.send_message(user("Hi"))
    clock.advance(days=8)
    assert [(s.session_id, s.acts) for s in await runtime.sweep(dry_run=True)] == [("s", False)]
    await runtime.sweep()
    assert len(await session.history()) == 1


# -- the audit


async def test_since_means_the_same_moment_with_and_without_a_zone(
    runtime: Runtime, clock: FrozenClock
) -> None:
    session = runtime.session("s")
    await session.send_message(user("before"))
    clock.advance(days=1)
    moment = to_datetime(clock.now())
    await session.send_message(user("after"))
    east = moment.astimezone(timezone(timedelta(hours=9)))
    ways = [
        moment,
        moment.replace(tzinfo=None),
        east,
        moment.isoformat(),
        moment.replace(tzinfo=None).isoformat(),
        east.isoformat(),
        moment.isoformat().replace("+00:00", "Z"),
        moment.date().isoformat(),
    ]
    found = [[event.seq for event in await session.events(since=way)] for way in ways]
    assert found == [[3]] * len(ways)
    assert moment == datetime(2026, 1, 2, tzinfo=UTC)
    with pytest.raises(InvalidInput):
        await session.events(since="yesterday")


async def test_state_changes_prunes_and_agents_are_events_and_pruning_deletes_none(
    runtime: Runtime,
) -> None:
    session = Agent("ann", ScriptedModel("Hello."), runtime=runtime).session("s", user_id="u")
    await session.run_async("Hi")
    await session.set_state("k", 1)
    await session.set_state("l", 1, scope="user")
    await session.send_message(user("more"))
    before = await session.events()
    await session.prune("keep_last_1")
    after = await session.events()
    assert after[: len(before)] == before
    kinds = [event.type for event in after]
    for kind in ("turn.started", "message.added", "usage", "turn.completed", "session.pruned"):
        assert kind in kinds
    assert kinds.count("state.set") == 2
    assert [event.seq for event in await session.events(limit=2)] == [e.seq for e in after[-2:]]


async def test_an_export_has_what_was_said_by_whom_and_when_in_every_line(
    runtime: Runtime,
) -> None:
    @tool(read_only=True)
    def look() -> str:
        """Look."""
        return "nothing"

    agent = Agent("ann", ScriptedModel(call("look"), "No."), tools=[look], runtime=runtime)
    chat = agent.session("s")
    await chat.send_message({"role": "user", "content": "Hi", "metadata": {"page": 3}})
    await chat.run_async("Is it there?")
    lines = [json.loads(line) for line in (await chat.export()).splitlines()]
    fields = {"timestamp", "role", "message", "metadata", "tool_calls", "seq", "type", "digest"}
    assert [sorted(fields - line.keys()) for line in lines] == [[]] * len(lines)
    messages = [line for line in lines if line["type"] == "message.added"]
    assert [line["role"] for line in messages] == ["user", "user", "assistant", "tool", "assistant"]
    assert messages[0]["metadata"] == {"page": 3}
    assert messages[2]["tool_calls"][0]["name"] == "look"
    with pytest.raises(InvalidInput):
        await chat.export("xml")  # pyright: ignore[reportArgumentType]


# -- sessions and agents


async def test_two_objects_with_one_id_are_one_conversation_also_after_a_restart(
    tmp_path: Path,
) -> None:
    path = tmp_path / "x.db"
    async with Runtime(SQLiteStore(path)) as runtime:
        one, two = runtime.session("s"), runtime.session("s")
        await asyncio.gather(*(s.send_message(user(f"{n}")) for n, s in enumerate([one, two] * 10)))
        assert await one.history() == await two.history()
        assert sorted(int(m.text) for m in await one.history()) == list(range(20))
        await one.set_state("k", 1)
        assert two.get_state("k") == 1
    async with Runtime(SQLiteStore(path)) as runtime:
        assert len(await runtime.session("s").history()) == 20


async def test_agents_record_question_tools_and_answer_and_the_next_one_sees_them(
    runtime: Runtime,
) -> None:
    @tool(read_only=True)
    def order() -> str:
        """Find the order."""
        return "order 7: shipped"

    session = runtime.session("s")
    first = Agent("sales", ScriptedModel(call("order"), "It was shipped."), tools=[order])
    second_model = ScriptedModel("Order 7, as sales told you.")
    second = Agent("support", second_model)
    await first.run("Where is it?", session=session)
    await second.run("Which order?", session=session)
    history = await session.history()
    roles = "user assistant tool assistant user assistant"
    assert [m.role for m in history] == roles.split()
    assert [m.agent for m in history if m.role == "assistant"] == ["sales", "sales", "support"]
    assert second_model.last_request.messages == history[:-1]


async def test_an_agent_does_not_answer_in_a_session_that_cannot_record_it(
    runtime: Runtime,
) -> None:
    session = runtime.session("s")
    await session.send_message(user("Hi"))
    await session.end()
    model = ScriptedModel("Hello.")
    with pytest.raises(SessionEnded):
        await Agent(model=model).run("Hello?", session=session)
    assert model.requests == []


async def test_too_many_rounds_are_an_error_of_the_tree_and_the_session_goes_on(
    runtime: Runtime,
) -> None:
    @tool(read_only=True)
    def look() -> str:
        """Look."""
        return "nothing"

    model = ScriptedModel(*[call("look") for _ in range(11)], "Enough.")
    session = Agent(model=model, tools=[look], runtime=runtime).session("s")
    with pytest.raises(ModelError):
        await session.run_async("Never stop")
    assert (await session.run_async("Stop")).text == "Enough."


async def test_a_message_without_a_role_or_with_a_wrong_one_is_refused(runtime: Runtime) -> None:
    session = runtime.session("s")
    for wrong in ({"content": "x"}, {"role": "robot", "content": "x"}, "x", None):
        with pytest.raises(InvalidInput):
            await session.send_message(wrong)  # pyright: ignore[reportArgumentType]
    assert await session.events() == []
