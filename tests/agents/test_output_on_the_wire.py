"""How a structured answer is asked of real providers, and how it comes back."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from types import ModuleType
from typing import Any

import pytest
from pydantic import BaseModel, create_model
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.profiles.openai import OpenAIModelProfile
from pydantic_ai.providers.openai import OpenAIProvider
from tests.agents import anthropic_server, openai_server
from tests.agents.http_server import Server

from tertulia import Agent, Runtime
from tertulia.agents.protocol import FINAL_RESULT
from tertulia.agents.providers import ProviderModel
from tertulia.errors import SchemaValidationError


class Place(BaseModel):
    """Where it is."""

    city: str
    country: str


class Open(BaseModel):
    numbers: dict[str, int]


class Anything(BaseModel):
    value: Any


class Tree(BaseModel):
    name: str
    leaves: list[Tree] = []


_FIELDS: dict[str, Any] = {f"n{n}": (int, n) for n in range(30)}
LARGE: type[BaseModel] = create_model("Large", **_FIELDS)
PERU = '{"city": "Lima", "country": "Peru"}'
LIMA = Place(city="Lima", country="Peru")


def look(city: str) -> str:
    """Look outside."""
    return f"sun in {city}"


@pytest.fixture(params=[openai_server, anthropic_server], ids=["openai", "anthropic"])
def wire(request: pytest.FixtureRequest) -> ModuleType:
    return request.param


@pytest.fixture
async def server(wire: ModuleType, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    async with wire.server() as made:
        monkeypatch.setenv(wire.KEY, "key")
        monkeypatch.setenv(wire.ADDRESS, made.url)
        yield made
    assert made.problems == []


def schema_in(request: dict[str, Any]) -> dict[str, Any] | None:
    """The schema that a request asks the whole answer to fit, where it does."""
    if "response_format" in request:
        return request["response_format"]["json_schema"]["schema"]
    return request.get("output_config", {}).get("format", {}).get("schema")


def tools_in(request: dict[str, Any]) -> dict[str, Any]:
    """The schemas of the tools in a request, by name."""
    tools = [tool.get("function", tool) for tool in request.get("tools") or ()]
    return {tool["name"]: tool.get("parameters") or tool["input_schema"] for tool in tools}


@pytest.mark.parametrize("streamed", [False, True], ids=["run", "stream"])
async def test_a_schema_is_the_providers_own_where_it_has_one(
    wire: ModuleType, server: Server, runtime: Runtime, streamed: bool
) -> None:
    agent = Agent(model=wire.MODEL, output_type=Place, runtime=runtime)
    server.replies.append(wire.text('{"city": ', '"Lima", "country": "Peru"}'))
    session = agent.session()
    if streamed:
        stream = session.stream_async("Where?")
        assert [event.type async for event in stream][-1] == "turn_completed"
        response = stream.response
    else:
        response = await session.run_async("Where?")
    assert response.output == LIMA
    [request] = server.requests
    wanted = schema_in(request)
    assert wanted is not None
    assert wanted["additionalProperties"] is False
    assert request.get("response_format", {}).get("json_schema", {}).get("strict", True)
    assert "tools" not in request


async def test_tools_and_a_schema_go_together(
    wire: ModuleType, server: Server, runtime: Runtime
) -> None:
    agent = Agent(model=wire.MODEL, output_type=Place, tools=[look], runtime=runtime)
    server.replies += [
        wire.calls(("c1", "look", '{"city": "Lima"}')),
        wire.text(PERU),
        wire.text('{"city": "Cusco", "country": "Peru"}'),
    ]
    session = agent.session()
    assert (await session.run_async("Where is sun?")).output == LIMA
    assert (await session.run_async("And?")).output == Place(city="Cusco", country="Peru")
    for request in server.requests:
        assert schema_in(request) is not None
        assert list(tools_in(request)) == ["look"]


async def test_an_answer_that_does_not_fit_is_asked_for_again(
    wire: ModuleType, server: Server, runtime: Runtime
) -> None:
    agent = Agent(model=wire.MODEL, output_type=Place, runtime=runtime)
    server.replies += [wire.text("Lima."), wire.text(PERU), wire.text("No.")]
    session = agent.session()
    assert (await session.run_async("Where?")).output == LIMA
    assert "does not fit" in json.dumps(server.requests[1]["messages"])
    server.replies += [wire.text("No."), wire.text("No.")]
    with pytest.raises(SchemaValidationError):
        await session.run_async("Where?")
    server.replies.append(wire.text(PERU))
    assert (await session.run_async("Where?")).output == LIMA
    assert "does not fit" not in json.dumps(server.requests[-1]["messages"])


@pytest.mark.parametrize(
    ("kind", "answer", "output"),
    [
        (Open, '{"numbers": {"one": 1}}', Open(numbers={"one": 1})),
        (Anything, '{"value": [1]}', Anything(value=[1])),
        (LARGE, '{"n0": 7}', LARGE(n0=7)),
        (Tree, '{"name": "oak"}', Tree(name="oak")),
    ],
    ids=["dict", "anything", "too large", "recursive"],
)
async def test_what_anthropic_cannot_enforce_is_asked_for_by_a_tool(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, kind: Any, answer: str, output: Any
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "key")
    async with anthropic_server.server() as server:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        server.replies += [
            anthropic_server.calls(("c1", FINAL_RESULT, answer)),
            anthropic_server.text("Yes."),
        ]
        model = anthropic_server.MODEL
        session = Agent(model=model, output_type=kind, runtime=runtime).session()
        assert (await session.run_async("Which?")).output == output
        [request] = server.requests
        assert schema_in(request) is None
        assert list(tools_in(request)) == [FINAL_RESULT]
        assert request["tool_choice"]["type"] in ("any", "tool")
        plain = Agent(model=model, runtime=runtime).session(session.id)
        assert (await plain.run_async("Sure?")).text == "Yes."
        assert server.problems == []


@pytest.mark.parametrize("kind", [Open, Anything, Tree], ids=["dict", "anything", "recursive"])
async def test_openai_gets_the_schema_even_where_it_is_not_strict(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, kind: Any
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    async with openai_server.server() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        answers = {Open: '{"numbers": {}}', Anything: '{"value": 1}', Tree: '{"name": "oak"}'}
        server.replies.append(openai_server.text(answers[kind]))
        session = Agent(model="openai:gpt-4o", output_type=kind, runtime=runtime).session()
        assert isinstance((await session.run_async("Which?")).output, kind)
        assert "response_format" in server.requests[0]
        assert server.problems == []


def model_without_schemas(server: Server, *, tools: bool) -> ProviderModel:
    """A model of an endpoint that has no JSON schema, or not even tools."""
    profile = OpenAIModelProfile(supports_json_schema_output=False, supports_tools=tools)
    return ProviderModel(
        "openai:local",
        lambda: OpenAIChatModel(
            "local", provider=OpenAIProvider(server.url, api_key="key"), profile=profile
        ),
    )


async def test_a_model_without_schemas_answers_by_a_tool(runtime: Runtime) -> None:
    async with openai_server.server() as server:
        model = model_without_schemas(server, tools=True)
        server.replies += [
            openai_server.calls(("c1", "look", '{"city": "Lima"}')),
            openai_server.calls(("c2", FINAL_RESULT, '{"city": ')),
            openai_server.calls(("c3", FINAL_RESULT, PERU)),
        ]
        agent = Agent(model=model, output_type=Place, tools=[look], runtime=runtime)
        assert (await agent.session().run_async("Where?")).output == LIMA
        for request in server.requests:
            assert sorted(tools_in(request)) == [FINAL_RESULT, "look"]
            assert request["tool_choice"] == "required"
            assert "response_format" not in request
        assert server.problems == []


async def test_a_model_with_neither_schemas_nor_tools_is_told_in_words(runtime: Runtime) -> None:
    async with openai_server.server() as server:
        model = model_without_schemas(server, tools=False)
        server.replies.append(openai_server.text(f"```json\n{PERU}\n```"))
        agent = Agent(model=model, output_type=Place, runtime=runtime)
        assert (await agent.session().run_async("Where?")).output == LIMA
        [request] = server.requests
        assert "tools" not in request
        assert "city" in json.dumps(request["messages"])
        assert server.problems == []
