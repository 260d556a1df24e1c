"""The offline model: it remembers by reading, calls tools, and never pretends."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tertulia import Agent, Message, Session, tool
from tertulia.agents.demo import demo_agent
from tertulia.agents.offline import OfflineModel
from tertulia.agents.wishes import expression
from tertulia.errors import ConfigurationError


@pytest.fixture
def session() -> Session:
    return Agent(model="offline").session()


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch) -> Session:
    monkeypatch.setenv("TERTULIA_OFFLINE_PAUSE", "0")
    return demo_agent("offline").session()


def test_it_knows_what_it_was_told(session: Session) -> None:
    session.run("My name is Alice")
    session.run("I'm a software engineer")
    answer = session.run("What do you know about me?").text
    assert "Alice" in answer
    assert "software engineer" in answer


def test_a_fork_knows_what_was_said_before_it_and_its_own(session: Session) -> None:
    session.run("We're planning a trip to Japan")
    session.run("I want to visit Tokyo and Kyoto")
    other = session.fork(session_id="alternative-plan")
    other.run("Actually, let's focus on Osaka instead")
    mine = session.run("What cities are we visiting?").text
    assert "Tokyo" in mine
    assert "Kyoto" in mine
    assert "Osaka" not in mine
    theirs = other.run("What cities are we visiting?").text
    assert "Osaka" in theirs
    assert "Tokyo" not in theirs
    other.clear()


def test_it_forgets_what_is_no_longer_in_the_conversation(session: Session) -> None:
    session.run("My name is Alice")
    session.clear()
    assert session.run("What is my name?").text == "You have not told me your name yet."


def test_it_goes_on_from_messages_that_it_did_not_write() -> None:
    history = [Message.user("My dog is Rex."), Message.assistant("A fine name.")]
    session = Agent(model="offline").session(messages=history)
    assert session.run("What is my dog?").text == "Your dog is Rex."


@pytest.mark.parametrize(
    ("told", "asked", "expected"),
    [
        ("I like tea and long walks.", "What do I like?", "You like tea and long walks."),
        ("My name is Ann and I live in Paris", "Where do I live?", "You live in Paris."),
        ("my favourite colour is blue", "What's my favourite colour?", "colour is blue"),
        ("I work as a nurse", "what do I do?", "You are a nurse."),
        ("I\u2019m a baker", "Who am I?", "you are a baker"),
        ("We are planning a trip to Peru", "where are we going?", "Peru"),
        ("I have two cats", "Where were we?", '"I have two cats"'),
        ("Good morning", "How many messages?", "1 message before"),
    ],
)
def test_it_answers_from_what_was_said(
    session: Session, told: str, asked: str, expected: str
) -> None:
    session.run(told)
    assert expected in session.run(asked).text


def test_it_never_pretends_to_be_a_language_model(session: Session) -> None:
    for question in ("Who are you?", "Are you ChatGPT?", "what's your name?", "hello"):
        assert "no language model" in session.run(question).text
    assert "not a language model" in session.run("Why is the sky blue?").text


def test_it_streams_word_by_word_and_always_the_same(session: Session) -> None:
    events = list(session.stream("Who are you?"))
    words = [event.text for event in events if event.type == "text_delta"]
    assert len(words) > 10
    assert "".join(words) == Agent(model=OfflineModel()).session().run("who are you").text


@pytest.mark.parametrize(
    ("asked", "tool", "arguments"),
    [
        ("What time is it?", "current_time", {}),
        ("what is (3 + 4) * 12?", "calculator", {"expression": "(3 + 4) * 12"}),
        ("What's 3 plus 4 times 2", "calculator", {"expression": "3 + 4 * 2"}),
        ("the sum of 3, 4 and 5, please", "calculator", {"expression": "3 + 4 + 5"}),
        ("Roll two dice", "roll_dice", {"count": 2}),
        ("roll 3d20", "roll_dice", {"count": 3, "sides": 20}),
        ("Roll a die with 20 sides", "roll_dice", {"sides": 20}),
        ("Take a note: call mum", "remember_note", {"text": "call mum"}),
        ("Remember to buy milk", "remember_note", {"text": "buy milk"}),
        ("What notes do I have?", "recall_notes", {}),
    ],
)
def test_it_calls_the_tool_that_a_message_asks_for(
    demo: Session, asked: str, tool: str, arguments: dict[str, object]
) -> None:
    [call] = demo.run(asked).tool_calls
    assert (call.name, call.arguments) == (tool, arguments)


@pytest.mark.parametrize(
    "said",
    [
        "I like to roll dice",
        "My phone number is 555-1234",
        "I was born on 1990-01-02",
        "We work 24/7",
        "What is the capital of France?",
        "Who are you?",
    ],
)
def test_it_calls_no_tool_for_what_asks_for_none(demo: Session, said: str) -> None:
    assert demo.run(said).tool_calls == []


def test_a_dates_and_numbers_are_no_arithmetic() -> None:
    assert expression("What happened on 2024-01-01?") is None
    assert expression("My number is 555-1234") is None
    assert expression("12*7") == "12*7"
    assert expression("what is 2^10") == "2**10"


def test_several_tools_in_one_message(demo: Session) -> None:
    response = demo.run("What time is it and roll a die?")
    assert [call.name for call in response.tool_calls] == ["current_time", "roll_dice"]


def test_the_calculator_says_what_it_cannot_do(demo: Session) -> None:
    assert demo.run("what is 12 * 7?").text == "calculator: 12 * 7 = 84"
    assert "division by zero" in demo.run("what is 1/0?").text
    assert "too large" in demo.run("calculate 9**9**9").text


def test_notes_are_kept_in_the_state_of_the_session(demo: Session) -> None:
    assert "no notes" in demo.run("Show my notes").text
    demo.run("Remember to buy milk")
    demo.run("Take a note: call mum")
    assert demo.get_state("notes") == ["buy milk", "call mum"]
    assert "1. buy milk; 2. call mum" in demo.run("What notes do I have?").text


def test_a_tool_of_a_page_is_called_with_the_id_in_the_question() -> None:
    def get_user_orders(user_id: str) -> str:
        """Get orders for a user."""
        return f"orders of {user_id}"

    session = Agent(model="offline", tools=[get_user_orders]).session()
    response = session.run("I'm user-123, what are my recent orders?")
    assert response.tool_calls[0].arguments == {"user_id": "user-123"}
    assert response.text == "get user orders: orders of user-123"


def test_a_pause_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERTULIA_OFFLINE_PAUSE", "soon")
    with pytest.raises(ConfigurationError, match="seconds between two words"):
        demo_agent("offline")


def test_a_structured_answer_is_filled_in_with_what_is_known() -> None:
    @dataclass
    class Person:
        name: str
        likes: list[str]

    session = Agent(model="offline").session()
    session.run("My name is Ann")
    response = session.json("Who am I?", schema=Person)
    assert response.output == Person("Ann", ["your name is Ann"])


def test_whoever_is_given_the_floor_answers_the_question() -> None:
    @tool(read_only=True)
    def find_order(order: str) -> str:
        """Find an order."""
        return f"order {order} is on its way"

    desk = Agent(name="order_desk", model="offline", tools=[find_order])
    session = Agent(name="hall", model="offline", handoffs=[desk]).session()
    response = session.run("Please find order 17 at the order desk")
    assert next(m.agent for m in response.messages if m.role == "assistant") == "hall"
    assert response.agent == "order_desk"
    assert "transfer" not in response.text
