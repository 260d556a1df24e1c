"""Anthropic's real client: what it is sent is what Anthropic accepts, whatever was said before."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.agents import anthropic_server as wire
from tests.agents import openai_server
from tests.agents.http_server import Server, never, stream

from tertulia import Agent, Message, Runtime, Session
from tertulia.agents.models import LanguageModel
from tertulia.errors import ModelError

PIXEL = "data:image/png;base64,iVBORw0KGgo="


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    async with wire.server() as made:
        monkeypatch.setenv(wire.KEY, "key")
        monkeypatch.setenv(wire.ADDRESS, made.url)
        yield made
    assert made.problems == []


@pytest.fixture
def agent(runtime: Runtime) -> Agent:
    return Agent(model=wire.MODEL, tools=[look], runtime=runtime)


@pytest.fixture
def session(server: Server, agent: Agent) -> Session:
    return agent.session(system="Be brief.")


def look(city: str) -> str:
    """Look outside.

    Args:
        city: Where.
    """
    if city == "Atlantis":
        raise LookupError("it has sunk")
    return f"sun in {city}" if city else ""


def sent(server: Server) -> list[tuple[str, list[str]]]:
    """The last request: who says what kinds of things."""
    return [
        (message["role"], [block["type"] for block in blocks(message)])
        for message in server.requests[-1]["messages"]
    ]


def blocks(message: dict[str, Any]) -> list[dict[str, Any]]:
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def texts(message: dict[str, Any]) -> list[str]:
    return [block["text"] for block in blocks(message)]


async def test_an_answer_is_streamed_with_its_usage(server: Server, session: Session) -> None:
    server.replies.append(wire.text("Hel", "lo."))
    events = [event async for event in session.stream_async("Hi", temperature=0.5, max_tokens=9)]
    assert [event.text for event in events if event.type == "text_delta"] == ["Hel", "lo."]
    usage = events[-1].response and events[-1].response.usage
    assert usage
    assert (usage.input_tokens, usage.output_tokens) == (11, 3)
    [request] = server.requests
    assert request["model"] == "claude-sonnet-4-6"
    assert request["stream"] is True
    assert (request["temperature"], request["max_tokens"]) == (0.5, 9)
    assert request["system"] == "Be brief."
    assert [(m["role"], texts(m)) for m in request["messages"]] == [("user", ["Hi"])]


async def test_parallel_calls_are_answered_in_one_message(server: Server, session: Session) -> None:
    server.replies += [
        stream(
            *wire.said("Let me see."),
            wire.event("content_block_stop", index=0),
            *[
                piece.replace(b'"index": 1', b'"index": 2').replace(b'"index": 0', b'"index": 1')
                for piece in wire.called(
                    ("toolu_1", "look", '{"city": "Lima"}'),
                    ("toolu_2", "look", '{"city": "Atlantis"}'),
                )[1:]
            ],
            *wire.ended("tool_calls", 2),
            wire.DONE,
        ),
        wire.text("Sunny."),
        wire.text("Yes."),
    ]
    response = await session.run_async("Weather?")
    assert response.text == "Sunny."
    [offered] = server.requests[0]["tools"]
    assert (offered["name"], offered["description"]) == ("look", "Look outside.")
    assert offered["input_schema"]["properties"]["city"]["description"] == "Where."
    assert sent(server) == [
        ("user", ["text"]),
        ("assistant", ["text", "tool_use", "tool_use"]),
        ("user", ["tool_result", "tool_result"]),
    ]
    lima, atlantis = blocks(server.requests[-1]["messages"][2])
    assert (lima["tool_use_id"], lima["is_error"]) == ("toolu_1", False)
    assert (atlantis["tool_use_id"], atlantis["is_error"]) == ("toolu_2", True)
    await session.run_async("Sure?")
    assert sent(server)[-2:] == [("assistant", ["text"]), ("user", ["text"])]


async def test_the_last_round_offers_tools_but_lets_none_be_called(
    server: Server, session: Session
) -> None:
    for number in range(10):
        server.replies.append(wire.calls((f"c{number}", "look", '{"city": ""}')))
    server.replies.append(wire.text("Enough."))
    assert (await session.run_async("Look on")).text == "Enough."
    assert server.requests[-1]["tool_choice"] == {"type": "none"}
    assert server.requests[-1]["tools"]


async def test_images_are_sent(server: Server, session: Session) -> None:
    server.replies.append(wire.text("A cat."))
    await session.run_async(
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image_url", "image_url": {"url": PIXEL}},
                {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}},
            ],
        }
    )
    _, data, link = blocks(server.requests[0]["messages"][0])
    assert data["source"] == {
        "type": "base64",
        "media_type": "image/png",
        "data": "iVBORw0KGgo=",
    }
    assert link["source"] == {"type": "url", "url": "https://example.com/cat.png"}


async def test_an_answer_that_was_broken_off_stays_in_the_history(
    server: Server, session: Session
) -> None:
    server.replies += [stream(*wire.said("One ", "two "), after=never), wire.text("Three.")]
    async with session.stream_async("Count") as events:
        async for event in events:
            if event.text == "two ":
                break
    assert (await session.run_async("Go on")).text == "Three."
    assert [texts(m) for m in server.requests[-1]["messages"]] == [
        ["Count"],
        ["One two "],
        ["Go on"],
    ]


async def test_two_messages_of_the_user_are_one(server: Server, session: Session) -> None:
    server.replies.append(wire.text("Hello both."))
    await session.send_message({"role": "user", "content": "I am Ada."})
    await session.run_async("And Bob is here.")
    assert [texts(m) for m in server.requests[-1]["messages"]] == [
        ["I am Ada.", "And Bob is here."]
    ]


async def test_two_answers_in_a_row_are_one(server: Server, session: Session) -> None:
    server.replies.append(wire.text("Fine."))
    for role, text in [("user", "Hi"), ("assistant", "Hello."), ("assistant", "How are you?")]:
        await session.send_message({"role": role, "content": text})
    await session.run_async("Fine, and you?")
    assert [role for role, _ in sent(server)] == ["user", "assistant", "user"]


@pytest.mark.parametrize("model", [wire.MODEL, "anthropic:claude-opus-4-8"])
async def test_a_system_message_between_two_answers_is_no_trouble(
    server: Server, runtime: Runtime, model: str
) -> None:
    session = Agent(model=model, runtime=runtime).session()
    server.replies.append(wire.text("Fine."))
    for role in ("user", "assistant", "system", "assistant"):
        await session.send_message({"role": role, "content": f"the {role} speaks"})
    assert (await session.run_async("And you?")).text == "Fine."


async def test_a_conversation_that_begins_with_an_answer_gets_a_beginning(
    server: Server, agent: Agent
) -> None:
    session = agent.session(system="Be brief.", messages=[Message.assistant("Welcome!")])
    server.replies += [wire.text("Hello."), wire.text("Yes.")]
    await session.run_async("Hi")
    assert [role for role, _ in sent(server)] == ["user", "assistant", "user"]
    await session.prune("keep_last_1")
    await session.run_async("Still there?")
    assert sent(server)[0][0] == "user"


async def test_an_agent_without_tools_goes_on_where_tools_were_called(
    server: Server, session: Session, runtime: Runtime
) -> None:
    server.replies += [
        wire.calls(("c1", "look", '{"city": "Lima"}')),
        wire.text("Sunny."),
        wire.text("Yes."),
    ]
    await session.run_async("Weather?")
    other = Agent(model=wire.MODEL, runtime=runtime)
    assert (await other.run("Sure?", session=session)).text == "Yes."
    assert server.requests[-1]["tool_choice"] == {"type": "none"}
    assert [tool["name"] for tool in server.requests[-1]["tools"]] == ["look"]


async def test_texts_without_a_word_are_not_sent_as_such(server: Server, session: Session) -> None:
    server.replies += [
        wire.text(" "),
        wire.calls(("c1", "look", '{"city": ""}')),
        wire.text(),
        wire.text("Well."),
    ]
    await session.run_async("")
    await session.run_async({"role": "user", "content": [{"type": "text", "text": " "}]})
    assert (await session.run_async("Hello?")).text == "Well."


@pytest.mark.parametrize("model", [wire.MODEL, "anthropic:claude-opus-4-8"])
async def test_system_messages_in_between_are_placed_where_they_may_be(
    server: Server, runtime: Runtime, model: str
) -> None:
    session = Agent(model=model, tools=[look], runtime=runtime).session(system="Be brief.")
    server.replies += [
        wire.calls(("c1", "look", '{"city": "Lima"}')),
        wire.text("Sunny."),
        wire.text("Yes."),
    ]
    await session.send_message({"role": "system", "content": "The user is Ada."})
    await session.run_async("Weather?")
    await session.send_message({"role": "developer", "content": "Be kind."})
    await session.send_message({"role": "system", "content": "Be very kind."})
    assert (await session.run_async("Sure?")).text == "Yes."


async def test_ids_of_another_provider_are_made_fit(
    server: Server, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with openai_server.server() as other:
        monkeypatch.setenv("OPENAI_API_KEY", "key")
        monkeypatch.setenv("OPENAI_BASE_URL", other.url)
        session = Agent(model="openai:gpt-4o", tools=[look], runtime=runtime).session()
        for _ in range(2):
            other.replies += [
                openai_server.calls(
                    ("functions.look:0", "look", '{"city": "Lima"}'),
                    ("functions.look:0", "look", '{"city": "Oslo"}'),
                ),
                openai_server.text("Sunny."),
            ]
            await session.run_async("Weather?")
        assert other.problems == []
    server.replies.append(wire.text("Yes."))
    claude = Agent(model=wire.MODEL, tools=[look], runtime=runtime)
    assert (await claude.run("Sure?", session=session)).text == "Yes."
    results = [
        block["content"][0]["text"]
        for message in server.requests[-1]["messages"]
        for block in blocks(message)
        if block["type"] == "tool_result"
    ]
    assert results == ["sun in Lima", "sun in Oslo"] * 2


async def test_an_error_in_the_middle_of_a_stream_has_its_status(
    server: Server, session: Session
) -> None:
    error = wire.event("error", error={"type": "overloaded_error", "message": "too many"})
    server.replies += [stream(*wire.said("Hel"), error), wire.text("Well.")]
    with pytest.raises(ModelError, match="too many") as raised:
        await session.run_async("Hi")
    assert raised.value.status == 529
    assert (await session.run_async("Hi")).text == "Well."


@pytest.mark.parametrize("name", ["claude-opus-4-8", "claude-sonnet-5", "claude-haiku-4-5"])
async def test_models_of_every_kind_answer(server: Server, runtime: Runtime, name: str) -> None:
    model = LanguageModel(f"anthropic:{name}")
    session = Agent(model=model, tools=[look], runtime=runtime).session(system="Be brief.")
    server.replies += [wire.calls(("c1", "look", '{"city": "Lima"}')), wire.text("Sunny.")]
    assert (await session.run_async("Weather?")).text == "Sunny."
