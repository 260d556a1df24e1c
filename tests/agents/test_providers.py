"""Real provider clients against a local server that speaks the provider's wire format."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.agents import openai_server as wire
from tests.agents.openai_server import Server

from tertulia import Agent, Message, Runtime, Session
from tertulia.agents import mapping
from tertulia.agents.failures import translated
from tertulia.agents.protocol import ModelRequest, ToolSpec
from tertulia.agents.providers import ProviderModel
from tertulia.errors import AgentError, ConfigurationError, MissingExtra, ModelError


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    async with wire.openai_server() as made:
        monkeypatch.setenv("OPENAI_API_KEY", "secret")
        monkeypatch.setenv("OPENAI_BASE_URL", made.url)
        yield made


def get_weather(city: str) -> str:
    """Tell the weather.

    Args:
        city: Where.
    """
    return f"sun in {city}"


@pytest.fixture
def session(runtime: Runtime) -> Session:
    agent = Agent(provider="openai", model="gpt-4o", tools=[get_weather], runtime=runtime)
    return agent.session(system="Be brief.")


async def test_an_answer_is_streamed_with_its_usage(server: Server, session: Session) -> None:
    server.replies.append(wire.text("Hel", "lo."))
    events = [event async for event in session.stream_async("Hi", temperature=0.5, max_tokens=9)]
    assert [event.text for event in events if event.type == "text_delta"] == ["Hel", "lo."]
    usage = events[-2].usage
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens) == (11, 3)
    [request] = server.requests
    assert request["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
    ]
    assert request["temperature"] == 0.5
    assert "secret" in server.headers[0]


async def test_a_tool_round_goes_over_the_wire(server: Server, session: Session) -> None:
    server.replies += [
        wire.call("get_weather", '{"ci', 'ty": "Paris"}'),
        wire.text("Sunny."),
        wire.text("Yes."),
    ]
    assert (await session.run_async("Weather in Paris?")).text == "Sunny."
    offered = server.requests[0]["tools"][0]["function"]
    assert offered["name"] == "get_weather"
    assert offered["description"] == "Tell the weather."
    assert offered["parameters"]["properties"]["city"]["description"] == "Where."
    sent = server.requests[1]["messages"]
    assert [message["role"] for message in sent] == ["system", "user", "assistant", "tool"]
    assert sent[2]["tool_calls"][0]["id"] == sent[3]["tool_call_id"] == "call_1"
    assert sent[3]["content"] == "sun in Paris"
    await session.run_async("Sure?")
    roles = [message["role"] for message in server.requests[2]["messages"]]
    assert roles == ["system", "user", "assistant", "tool", "assistant", "user"]


async def test_malformed_arguments_are_told_to_the_model(server: Server, session: Session) -> None:
    server.replies += [wire.call("get_weather", '{"city": '), wire.text("Sorry.")]
    response = await session.run_async("Weather?")
    assert "no JSON object" in response.messages[2].text
    assert response.text == "Sorry."


@pytest.mark.parametrize(
    "broken",
    [
        [wire.status(429, "slow down")] * 3,
        [wire.status(500)] * 3,
        [wire.status(400, "bad request")],
        [wire.status(401, "wrong key")],
        [wire.stream(wire.chunk({"content": "half"}), whole=False)],
        [wire.stream(wire.chunk({"content": "half"}))],
        [wire.stream(b"data: {not json\n\n")],
    ],
    ids=["429", "500", "400", "401", "cut", "unfinished", "malformed"],
)
async def test_after_every_failure_the_next_turn_works(
    server: Server, session: Session, broken: list[wire.Reply]
) -> None:
    server.replies += broken
    with pytest.raises(ModelError, match="openai:gpt-4o"):
        await session.run_async("Hi")
    assert await session.history() == []
    server.replies[:] = [wire.text("Well.")]
    assert (await session.run_async("Again")).text == "Well."
    assert [m["content"] for m in server.requests[-1]["messages"]] == ["Be brief.", "Again"]


async def test_a_failure_that_passes_is_tried_again(server: Server, session: Session) -> None:
    server.replies += [wire.status(500), wire.status(429), wire.text("Well.")]
    assert (await session.run_async("Hi")).text == "Well."


async def test_breaking_off_ends_the_request(server: Server, session: Session) -> None:
    closed = asyncio.Event()

    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )
        try:
            while True:
                piece = wire.chunk({"content": "x "})
                writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
                await writer.drain()
                await asyncio.sleep(0.001)
        finally:
            closed.set()

    server.replies += [endless, wire.text("Well.")]
    async with session.stream_async("Go") as stream:
        async for event in stream:
            if event.text:
                break
    await asyncio.wait_for(closed.wait(), 10)
    assert (await session.run_async("Next")).text == "Well."
    assert [m.text for m in await session.history()] == ["Go", "x ", "Next", "Well."]


def test_one_agent_works_in_loop_after_loop_and_in_a_script(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")

    async def ask(session: Session, *, in_thread: bool) -> str:
        async with wire.openai_server() as server:
            monkeypatch.setenv("OPENAI_BASE_URL", server.url)
            server.replies += [wire.text("Well."), wire.text("Well.")]
            if in_thread:
                return (await asyncio.to_thread(session.run, "Hi")).text
            await session.run_async("Hi")
            return (await session.run_async("Hi")).text

    session = Agent(model="openai:gpt-4o").session()
    assert asyncio.run(ask(session, in_thread=False)) == "Well."
    assert asyncio.run(ask(session, in_thread=False)) == "Well."
    assert asyncio.run(ask(session, in_thread=True)) == "Well."
    assert len(session.messages) == 10


async def test_a_missing_key_says_what_to_set(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    session = Agent(model="openai:gpt-4o", runtime=runtime).session()
    with pytest.raises(ConfigurationError, match="OPENAI_API_KEY"):
        await session.run_async("Hi")


@pytest.mark.parametrize(
    "variable",
    ["GEMINI_API_KEY", "HF_TOKEN", "CO_API_KEY", "AWS_SECRET_ACCESS_KEY", "PROXY_PASSWORD"],
)
async def test_no_secret_of_the_environment_is_shown_whatever_its_variable_is_called(
    server: Server, session: Session, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "value-1234")
    monkeypatch.setenv("LONGER_TOKEN", "value-1234-and-more")
    monkeypatch.setenv("TURNED_ON_KEY", "400")
    server.replies.append(wire.status(400, "refused value-1234 and value-1234-and-more"))
    with pytest.raises(ModelError, match=r"HTTP 400.*refused \*\*\* and \*\*\*;") as raised:
        await session.run_async("Hi")
    assert raised.value.__cause__ is None
    assert raised.value.__context__ is None


async def test_an_unknown_provider_is_a_configuration_error(runtime: Runtime) -> None:
    session = Agent(model="nobody:model", runtime=runtime).session()
    with pytest.raises(ConfigurationError, match="nobody:model"):
        await session.run_async("Hi")


async def test_a_missing_package_names_its_install_line(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make() -> Any:
        raise ModuleNotFoundError("No module named 'openai'")

    agent = Agent(model=ProviderModel("openai:gpt-4o", make), runtime=runtime)
    with pytest.raises(MissingExtra, match=r"pip install 'tertulia\[openai\]'"):
        await agent.session().run_async("Hi")


def test_every_error_of_the_library_becomes_ours() -> None:
    from pydantic_ai import exceptions

    def said(_: object) -> str:
        return "what went wrong"

    def without_arguments(_: object) -> None:
        return None

    plain = {"__init__": without_arguments, "__str__": said}
    for name, kind in vars(exceptions).items():
        if not isinstance(kind, type) or not issubclass(kind, Exception) or name.startswith("_"):
            continue
        if not issubclass(kind, BaseExceptionGroup):
            error = type(name, (kind,), plain)()
            assert isinstance(translated(error, "openai:gpt-4o"), AgentError)
    assert isinstance(translated(TimeoutError(), "openai:gpt-4o"), ModelError)


def test_every_kind_of_message_is_mapped() -> None:
    request = ModelRequest(
        system="S",
        messages=[
            Message.system("more"),
            Message.user(
                [
                    {"type": "text", "text": "see"},
                    {"type": "image_url", "image_url": {"url": "http://x/a.png"}},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,QQ=="}},
                ]
            ),
            Message.assistant(""),
            Message.assistant("a", tool_calls=[{"id": "1", "name": "t", "arguments": {}}]),
            Message.tool("r", "1"),
            Message.user("next"),
        ],
        tools=[ToolSpec("t", "", {"type": "object", "properties": {}})],
        may_call=False,
    )
    made = mapping.messages(request)
    assert [[part.part_kind for part in message.parts] for message in made] == [
        ["system-prompt", "system-prompt", "user-prompt"],
        ["text", "tool-call"],
        ["tool-return", "user-prompt"],
    ]
    assert dict(mapping.settings(request)) == {"tool_choice": "none"}
    with pytest.raises(ModelError, match="'video'"):
        mapping.messages(ModelRequest(messages=[Message.user([{"type": "video"}])]))
