"""The code blocks of the pages that Tertulia keeps, run with only their import lines changed."""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from tertulia import Agent, Message, Session, configure
from tertulia.errors import RetentionRefused

BLOCKS = Path(__file__).parent / "blocks"
_IMPORT = re.compile(r"^from (?:agnt5|agent)(?:\.stores)? import ", re.MULTILINE)
Names = dict[str, Any]


def block(name: str) -> str:
    """A block as it is printed, but for its import lines; ``[...]`` is some JSON."""
    text = (BLOCKS / f"{name}.txt").read_text()
    return _IMPORT.sub("from tertulia import ", text).replace("[...]", '["..."]')


async def run(name: str, **prelude: Any) -> Names:
    """Run a block after what its page takes for granted; gives the names that it leaves."""
    names: Names = {"Session": Session, "Message": Message, "json": json, **prelude}
    code = compile(block(name), name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    waiting = eval(code, names)
    if inspect.iscoroutine(waiting):
        await cast("Awaitable[None]", waiting)
    return names


def run_now(name: str, **prelude: Any) -> Names:
    """Run a block of synchronous code, as in a script."""
    names: Names = {"Session": Session, "Message": Message, "json": json, **prelude}
    exec(compile(block(name), name, "exec"), names)
    return names


@pytest.fixture(params=["memory:", "sqlite:///pages.db"], autouse=True)
def store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """Each block runs in an empty folder, on each store, with the offline model."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TERTULIA_MODEL", "offline")
    configure(store=request.param)
    yield request.param
    configure(store="memory:")


@pytest.fixture
def agent() -> Agent:
    return Agent(model="offline")


class Database:
    """What the page calls ``db``."""

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}

    def save_session(self, session_id: str, data: dict[str, Any]) -> None:
        self.kept[session_id] = json.dumps(data)


class Redis:
    """As much of a Redis client as the page uses."""

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}

    def set(self, key: str, value: str) -> None:
        self.kept[key] = value

    def get(self, key: str) -> str | None:
        return self.kept.get(key)

    def delete(self, key: str) -> int:
        return 1 if self.kept.pop(key, None) is not None else 0

    def keys(self, pattern: str) -> list[str]:
        return [key for key in self.kept if key.startswith(pattern.removesuffix("*"))]


# -- page 002


def test_access_history(agent: Agent, capsys: pytest.CaptureFixture[str]) -> None:
    session = agent.session(messages=[Message.user("hello"), Message.assistant("hi there")])
    names = run_now("002_access_history", session=session)
    assert capsys.readouterr().out.splitlines() == [
        "Message count: 2",
        "[user]: hello...",
        "[assistant]: hi there...",
    ]
    names["messages"].clear()
    assert len(session.messages) == 2


def test_clear_history(agent: Agent, capsys: pytest.CaptureFixture[str]) -> None:
    session = agent.session()
    session.add_message(Message.user("hello"))
    run_now("002_clear_history", session=session)
    assert capsys.readouterr().out == "0\n"


def test_add_messages_manually(agent: Agent) -> None:
    session = agent.session()
    run_now("002_add_messages", session=session)
    assert [(m.role, m.text) for m in session.messages] == [
        ("user", "Custom user message"),
        ("assistant", "Custom assistant response"),
    ]


def test_custom_session_id(agent: Agent, capsys: pytest.CaptureFixture[str]) -> None:
    run_now("002_custom_session_id", agent=agent)
    assert capsys.readouterr().out == "user-123-conv-456\n"


def test_prepopulated_history(agent: Agent) -> None:
    session = run_now("002_prepopulated_history", agent=agent)["session"]
    assert [m.role for m in session.messages] == ["user", "assistant", "user", "assistant"]


def test_session_forking(agent: Agent) -> None:
    names = run_now("002_session_forking", agent=agent)
    session, fork = names["session"], names["alt_session"]
    said = [m.text for m in session.messages if m.role == "user"]
    assert said == [
        "We're planning a trip to Japan",
        "I want to visit Tokyo and Kyoto",
        "What cities are we visiting?",
    ]
    assert "Osaka" not in " ".join(m.text for m in session.messages)
    assert [m.text for m in fork.messages if m.role == "user"] == [
        *said[:2],
        "Actually, let's focus on Osaka instead",
        "What cities are we visiting?",
    ]
    assert names["response"].text


def test_save_and_restore_session_state(agent: Agent) -> None:
    session = agent.session(session_id="s")
    session.run("My name is Alice")
    db = Database()
    run_now("002_save_session_state", session=session, db=db)
    assert json.loads(db.kept["s"])["session_id"] == "s"
    said = [m.text for m in session.messages]
    configure(store="memory:")
    names = run_now("002_restore_session_state", agent=agent)
    restored = names["restored"]
    assert [m.text for m in restored.messages][:2] == said
    assert names["response"].text == restored.messages[-1].text


def test_memory_store(agent: Agent) -> None:
    session = agent.session()
    session.add_message(Message.user("hello"))
    names = run_now("002_memory_store", session=session)
    assert names["data"] == session.to_dict()


def test_sqlite_store(agent: Agent) -> None:
    session = agent.session()
    session.add_message(Message.user("hello"))
    names = run_now("002_sqlite_store", session=session, agent=agent)
    assert names["session"] is not session
    assert [m.text for m in names["session"].messages] == ["hello"]
    assert Path("sessions.db").exists()
    names["store"].close_now()


def test_a_live_session_on_the_custom_store_of_the_page(agent: Agent) -> None:
    names = run_now("002_custom_store")
    redis = Redis()
    store = names["RedisStore"](redis)
    session = agent.session(session_id="s", store=store)
    session.run("My name is Alice")
    session.set_state("step", 1)
    assert store.list_sessions() == ["s"]
    saved = store.load("s")
    assert [m["content"] for m in saved["messages"]] == [m.text for m in session.messages]
    again = agent.session(session_id="s", store=names["RedisStore"](redis))
    assert again.get_state("step") == 1
    assert [m.text for m in again.messages] == [m.text for m in session.messages]


# -- page 003


async def test_creating_a_session_and_managing_messages() -> None:
    names = await run("003_creating_a_session")
    session = names["session"]
    assert (session.id, session.app_name, session.user_id) == (
        "conv-2024-001",
        "research_assistant",
        "user-123",
    )
    await run("003_send_messages", session=session)
    names = await run("003_get_history", session=session)
    assert [m.role for m in names["all_messages"]] == ["user", "assistant"]
    assert names["messages"] == names["all_messages"]
    assert [m.text for m in names["user_messages"]] == [
        "What are the key challenges in AI alignment?"
    ]


async def test_scoped_state() -> None:
    session = Session(id="s", app_name="shop", user_id="user-123")
    await run("003_scoped_state", session=session)
    await session.flush()
    other = Session(id="t", app_name="shop", user_id="user-123")
    assert session.get_state("shopping_cart") == ["item1", "item2"]
    assert other.get_state("language", scope="user") == "English"
    assert other.get_state("feature_flags", scope="app") == {"new_ui": True}
    assert session.get_state("processing_step", scope="temp") == "validation"
    assert other.get_state("shopping_cart") is None


async def test_session_export_and_audit() -> None:
    names = await run("003_export_and_audit", Agent=Agent)
    session = names["session"]
    lines = [json.loads(line) for line in names["jsonl_export"].splitlines()]
    for line in lines[:-1]:
        assert {"timestamp", "role", "message", "metadata", "tool_calls"} <= line.keys()
    assert len(names["recent_events"]) == len(lines) - 1
    assert session.metadata["auditor"] == "external-firm"
    assert await session.verify()


async def test_long_running_sessions_with_pruning() -> None:
    await run("003_long_running_pruning")


async def test_the_pruning_of_a_long_running_session_keeps_what_a_model_finds_important() -> None:
    session = Session(id="long-conversation-456", user_id="user-123")
    said = [f"My item{n} is red." if n < 60 else f"Well, {n}." for n in range(160)]
    await session.send_messages([{"role": "user", "content": text} for text in said])
    await run("003_long_running_pruning")
    history = await session.history()
    assert len(history) == 51
    assert history[0].role == "system"
    assert history[0].text.splitlines() == [f"The user said: {text}" for text in said[:20]]
    assert [message.text for message in history[1:]] == said[20:60] + said[150:]


async def test_the_pruning_of_long_running_sessions_that_needs_no_model() -> None:
    session = Session(id="long-conversation-456", user_id="user-123")
    await session.send_messages([{"role": "user", "content": str(n)} for n in range(120)])
    lines = [
        line.split("#")[0].strip()
        for line in block("003_long_running_pruning").splitlines()
        if "prune(" in line
    ]
    assert lines == [
        'await session.prune(strategy="keep_important")',
        'await session.prune(strategy="sliding_window", window_size=100)',
        'await session.prune(strategy="summarize_old", threshold=50)',
    ]
    await session.prune(strategy="keep_important", judge=lambda message: message.text != "5")
    assert len(await session.history()) == 119
    await session.prune(strategy="sliding_window", window_size=100)
    assert len(await session.history()) == 100
    await session.prune(strategy="summarize_old", threshold=50, summarize=lambda _: "old")
    assert len(await session.history()) == 51


async def test_retention_for_compliance() -> None:
    session = (await run("003_retention_compliance"))["session"]
    await session.send_message({"role": "user", "content": "hello"})
    with pytest.raises(RetentionRefused):
        await session.delete()


async def test_retention_for_performance() -> None:
    session = (await run("003_retention_performance"))["session"]
    await session.send_messages([{"role": "user", "content": str(n)} for n in range(1_005)])
    assert len(await session.history()) == 1_000


async def test_appropriate_state_scopes() -> None:
    session = Session(id="s", user_id="user-123")
    await run("003_scopes", session=session, content="draft", flags={"new_ui": True})
    await session.flush()
    assert session.get_state("draft_document") == "draft"
    assert session.state.app["feature_flags"] == {"new_ui": True}
    assert session.state.user["theme"] == "dark"


async def test_design_for_coordination() -> None:
    session = Session(id="s")
    names = await run("003_coordination", session=session)
    assert names["current_stage"] == "research"
    assert names["researcher_output"]["status"] == "completed"


async def test_retention_strategies() -> None:
    session = (await run("003_retention_strategies"))["session"]
    assert session.id == "temp-chat"
    assert session.retention["auto_prune"] is True
