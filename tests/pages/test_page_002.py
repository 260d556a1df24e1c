"""The page on sessions of an agent: every block, with only its import lines changed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from pydantic import BaseModel
from tests.pages.players import Player, Provider
from tests.pages.running import Database, Redis, run, run_now

from tertulia import Agent, Message, Session, ToolCall, configure

ALICE = "Based on our conversation, I know that your name is Alice."


def said(session: Session) -> list[tuple[str, str]]:
    """The history as role and text."""
    return [(message.role, message.text) for message in session.messages]


# -- with an agent


def test_basic_usage(openai: Provider, capsys: pytest.CaptureFixture[str]) -> None:
    openai.plays("Hello, Alice.", "Noted.", ALICE)
    session = run_now("002_basic_usage")["session"]
    assert capsys.readouterr().out == f"{ALICE}\n"
    history = said(session)
    assert [text for role, text in history if role == "user"] == [
        "My name is Alice",
        "I'm a software engineer",
        "What do you know about me?",
    ]
    assert openai.requests() == [history[:1], history[:3], history[:5]]


def test_basic_usage_makes_sense_with_the_offline_model(agent: Agent) -> None:
    session = agent.session()
    session.run("My name is Alice")
    session.run("I'm a software engineer")
    answer = session.run("What do you know about me?").text
    assert "Alice" in answer
    assert "software engineer" in answer


def test_system_prompt(player: Player) -> None:
    player.plays("Use open(path).")
    session = run_now("002_system_prompt", agent=player.agent())["session"]
    system = "You are a helpful coding assistant. Always provide code examples."
    assert player.requests() == [
        [("system", system), ("user", "How do I read a file in Python?")],
    ]
    assert session.system == system
    assert said(session)[-1] == ("assistant", "Use open(path).")


def test_prepopulated_history(player: Player) -> None:
    player.plays("Berlin.")
    session = run_now("002_prepopulated_history", agent=player.agent())["session"]
    before = [
        ("user", "What's the capital of France?"),
        ("assistant", "The capital of France is Paris."),
        ("user", "What about Germany?"),
    ]
    assert player.requests() == [before]
    assert said(session) == [*before, ("assistant", "Berlin.")]


def test_run_with_options_of_one_call(player: Player) -> None:
    player.plays("It is this.")
    session = player.agent().session()
    assert run_now("002_run", session=session)["response"].text == "It is this."
    assert player.asked() == [{"temperature": 0.7, "max_tokens": 500}]


async def test_run_async(player: Player) -> None:
    player.plays("Await it.")
    session = player.agent().session()
    names = await run("002_run_async", session=session)
    assert names["response"].text == "Await it."
    assert said(session) == [("user", "Explain async/await"), ("assistant", "Await it.")]


def test_stream(player: Player, capsys: pytest.CaptureFixture[str]) -> None:
    player.plays("Once upon a time")
    session = player.agent().session()
    run_now("002_stream", session=session)
    assert capsys.readouterr().out == "Once upon a time"
    assert said(session) == [("user", "Write a story"), ("assistant", "Once upon a time")]


async def test_stream_async(player: Player, capsys: pytest.CaptureFixture[str]) -> None:
    player.plays("Roses are red")
    session = player.agent().session()
    await run("002_stream_async", session=session)
    assert capsys.readouterr().out == "Roses are red"
    assert said(session) == [("user", "Write a poem"), ("assistant", "Roses are red")]


def test_json(player: Player, capsys: pytest.CaptureFixture[str]) -> None:
    player.plays("Good morning.", {"key_points": ["hello", "goodbye"], "conclusion": "brief"})
    session = player.agent().session()
    session.run("Good morning")
    names = run_now("002_json", session=session)
    assert capsys.readouterr().out == "['hello', 'goodbye']\n"
    assert isinstance(names["response"].output, names["Summary"])
    assert names["response"].conclusion == "brief"
    assert player.requests()[1] == [
        ("user", "Good morning"),
        ("assistant", "Good morning."),
        ("user", "Summarize our conversation"),
    ]


def test_session_forking(player: Player) -> None:
    player.plays("Fine.", "Noted.", "Osaka it is.", "Tokyo and Kyoto.", "Osaka.")
    names = run_now("002_session_forking", agent=player.agent())
    session, fork = names["session"], names["alt_session"]
    shared = [
        ("user", "We're planning a trip to Japan"),
        ("assistant", "Fine."),
        ("user", "I want to visit Tokyo and Kyoto"),
        ("assistant", "Noted."),
    ]
    last = ("user", "What cities are we visiting?")
    assert said(session) == [*shared, last, ("assistant", "Tokyo and Kyoto.")]
    branch = [
        ("user", "Actually, let's focus on Osaka instead"),
        ("assistant", "Osaka it is."),
        last,
    ]
    assert said(fork) == [*shared, *branch, ("assistant", "Osaka.")]
    assert player.requests()[3] == [*shared, last]
    assert player.requests()[4] == [*shared, *branch]
    assert fork.session_id == "alternative-plan"


def test_session_forking_makes_sense_with_the_offline_model(agent: Agent) -> None:
    names = run_now("002_session_forking", agent=agent)
    assert "Osaka" in names["response"].text
    assert "Osaka" not in " ".join(text for _, text in said(names["session"]))


def test_save_and_restore_session_state(player: Player) -> None:
    player.plays("Hello, Alice.", "At your name.")
    agent = player.agent()
    session = agent.session(session_id="s")
    session.run("My name is Alice")
    db = Database()
    run_now("002_save_session_state", session=session, db=db)
    assert json.loads(db.kept["s"])["session_id"] == "s"
    before = said(session)
    configure(store="memory:")
    names = run_now("002_restore_session_state", agent=agent)
    assert player.requests()[1] == [*before, ("user", "Where were we?")]
    assert names["response"].text == "At your name."
    assert said(names["restored"])[:2] == before


def test_tools(openai: Provider) -> None:
    openai.plays(
        ToolCall("c1", "get_user_orders", {"user_id": "user-123"}),
        "A laptop and a mouse.",
        "It was shipped.",
    )
    names = run_now("002_tools")
    history = names["session"].messages
    assert [message.role for message in history] == [
        "user",
        "assistant",
        "tool",
        "assistant",
        "user",
        "assistant",
    ]
    assert history[1].tool_calls[0].arguments == {"user_id": "user-123"}
    assert json.loads(history[2].text)[0] == {"id": "1", "item": "Laptop", "status": "shipped"}
    assert names["response"].text == "It was shipped."
    last = openai.requests()[-1]
    assert last[0] == ("system", "You are a customer service assistant.")
    assert ("tool", history[2].text) in last, "the next turn still sees what the tool said"
    [tool] = openai.server.requests[0]["tools"]
    assert tool["function"]["name"] == "get_user_orders"
    assert tool["function"]["description"] == "Get orders for a user."


def test_use_system_prompts(player: Player) -> None:
    player.plays("Have you tried to restart it?")
    session = run_now("002_use_system_prompts", agent=player.agent())["session"]
    session.run("It does not work")
    [[(role, text), *_]] = player.requests()
    assert role == "system"
    assert text.startswith("You are a technical support agent for Acme Software.")


class ConversationSummary(BaseModel):
    """What the page takes for granted."""

    points: list[str]


def test_manage_history_length(player: Player) -> None:
    player.plays({"points": ["one", "two", "three"]}, "Go on.")
    agent = player.agent()
    long = [Message.user(str(number)) for number in range(21)]
    session = agent.session(messages=long)
    given = {"session": session, "agent": agent, "ConversationSummary": ConversationSummary}
    names = run_now("002_history_length", **given)
    assert names["summary_response"].output == ConversationSummary(points=["one", "two", "three"])
    names["new_session"].run("Where were we?")
    assert player.requests()[1][0] == (
        "system",
        "Previous conversation summary: points=['one', 'two', 'three']",
    )
    short = agent.session(messages=[Message.user("hello")])
    assert "new_session" not in run_now("002_history_length", **{**given, "session": short})


def test_handle_errors_gracefully(openai: Provider, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.agents.openai_server import status

    refused = {"x-should-retry": "false"}
    openai.plays("Hello.")
    session = openai.agent().session()
    session.run("hello")
    openai.server.replies.append(status(500, "the model is down", headers=refused))
    run_now("002_handle_errors", session=session, user_input="Are you there?")
    printed = capsys.readouterr().out
    assert printed.startswith("Error: ")
    assert printed.endswith(". Please try again.\n")
    assert said(session) == [("user", "hello"), ("assistant", "Hello.")]
    openai.plays("Yes.")
    names = run_now("002_handle_errors", session=session, user_input="Are you there?")
    assert names["response"].text == "Yes."
    assert openai.requests()[-1] == [
        ("user", "hello"),
        ("assistant", "Hello."),
        ("user", "Are you there?"),
    ]


def test_session_ids_for_tracking(player: Player) -> None:
    player.plays("How can I help?")
    make = run_now("002_session_ids_for_tracking", agent=player.agent())["create_support_session"]
    session, other = make("ann"), make("ann")
    assert re.fullmatch(r"ann-[0-9a-f]{8}", session.session_id)
    assert session.session_id != other.session_id
    session.run("hello")
    assert player.requests() == [[("system", "You are a support agent."), ("user", "hello")]]


# -- history and stores, for which any agent will do


def test_custom_session_id(agent: Agent, capsys: pytest.CaptureFixture[str]) -> None:
    run_now("002_custom_session_id", agent=agent)
    assert capsys.readouterr().out == "user-123-conv-456\n"


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
    assert said(session) == [
        ("user", "Custom user message"),
        ("assistant", "Custom assistant response"),
    ]


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
    assert said(names["session"]) == [("user", "hello")]
    assert Path("sessions.db").exists()
    names["store"].close_now()


def test_a_live_session_on_the_custom_store_of_the_page(player: Player) -> None:
    player.plays("Hello, Alice.")
    names = run_now("002_custom_store")
    redis = Redis()
    store = names["RedisStore"](redis)
    agent = player.agent()
    session = agent.session(session_id="s", store=store)
    session.run("My name is Alice")
    session.set_state("step", 1)
    assert store.list_sessions() == ["s"]
    saved = store.load("s")
    assert [m["content"] for m in saved["messages"]] == [text for _, text in said(session)]
    again = agent.session(session_id="s", store=names["RedisStore"](redis))
    assert again.get_state("step") == 1
    assert said(again) == said(session)
