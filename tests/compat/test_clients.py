"""The client of models under the names of the other SDK, against a real HTTP server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.agents import openai_server
from tests.agents.http_server import Server

from tertulia.compat.atoms import ChatChunk, ContextManager, OpenAIClient, ToolCall
from tertulia.compat.atoms.clients.openai import OpenAIClient as Direct
from tertulia.compat.atoms.clients.types import ToolResult
from tertulia.compat.atoms.context import synchronized
from tertulia.compat.atoms.type import NOT_GIVEN, is_given
from tertulia.errors import ModelError

HELLO = [{"role": "user", "content": "Hello"}]
TOOL = {
    "type": "function",
    "function": {"name": "look", "description": "", "parameters": {"type": "object"}},
}


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with openai_server.server() as made:
        yield made
    assert made.problems == []


@pytest.fixture
def client(server: Server) -> OpenAIClient:
    return OpenAIClient("gpt-4o", api_key="secret-key", base_url=server.url)


def whole(content: str | None, calls: list[dict[str, Any]] | None = None) -> openai_server.Reply:
    """An answer that does not come in pieces."""
    message = {"role": "assistant", "content": content, "tool_calls": calls}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    told = {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "usage": usage}
    return openai_server.body(json.dumps({**told, "choices": [choice]}).encode(), 200,
                              "application/json")  # fmt: skip


async def chunks(client: OpenAIClient, **options: Any) -> list[ChatChunk]:
    return [chunk async for chunk in await client.chat(HELLO, stream=True, **options)]


async def test_an_answer_comes_whole(client: OpenAIClient, server: Server) -> None:
    server.replies.append(whole("Hi."))
    answer = await client.chat(HELLO)
    assert (answer.content, answer.tool_calls) == ("Hi.", None)
    assert answer.usage["total_tokens"] == 5
    assert server.requests == [{"model": "gpt-4o", "messages": HELLO, "stream": False}]
    assert "Bearer secret-key" in server.headers[0]


async def test_an_answer_comes_in_pieces(client: OpenAIClient, server: Server) -> None:
    server.replies.append(openai_server.text("Hi ", "there."))
    assert await chunks(client) == [
        ChatChunk("Hi "),
        ChatChunk("there."),
        ChatChunk(None, None, "stop"),
    ]


async def test_tool_calls_come_whole_in_the_last_piece(
    client: OpenAIClient, server: Server
) -> None:
    made = [("c1", "look", '{"a": 1}'), ("c2", "look", "{}")]
    server.replies.append(openai_server.calls(*made))
    [last] = await chunks(client, tools=[TOOL])
    assert last.finish_reason == "tool_calls"
    assert last.tool_calls == [ToolCall(*each) for each in made]
    assert server.requests[0]["tools"] == [TOOL]


async def test_tool_calls_come_with_a_whole_answer(client: OpenAIClient, server: Server) -> None:
    call = ToolCall("c1", "look", '{"a": 1}')
    server.replies.append(whole(None, [call.to_dict()]))
    answer = await client.chat(HELLO, tools=[TOOL])
    assert (answer.content, answer.tool_calls) == (None, [call])


async def test_a_conversation_goes_on_after_a_tool(client: OpenAIClient, server: Server) -> None:
    call = ToolCall("c1", "look", "{}")
    result = ToolResult("c1", "look", '"a hat"')
    server.replies.append(whole("A hat."))
    calling = {"role": "assistant", "content": "", "tool_calls": [call.to_dict()]}
    answer = await client.chat([*HELLO, calling, result.to_message()])
    assert answer.content == "A hat."


async def test_options_of_a_call_win_and_zero_is_an_option(server: Server) -> None:
    client = OpenAIClient("gpt-4o", "k", server.url, temperature=0, max_tokens=5, top_p=0.5, seed=1)
    server.replies.append(whole("Hi."))
    await client.chat(HELLO, max_tokens=9, seed=NOT_GIVEN)
    del server.requests[0]["messages"], server.requests[0]["stream"]
    assert server.requests[0] == {
        "model": "gpt-4o",
        "temperature": 0,
        "max_tokens": 9,
        "top_p": 0.5,
    }


async def test_the_key_and_the_address_come_from_the_environment(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "from-outside")
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    server.replies.append(whole("Hi."))
    await Direct().chat(HELLO)
    assert server.requests[0]["model"] == "gpt-4o-mini"
    assert "Bearer from-outside" in server.headers[0]


def test_without_a_key_the_client_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("SMALLEST_API_KEY", raising=False)
    with pytest.raises(ValueError, match="OPENAI_API_KEY"):
        OpenAIClient()
    with pytest.raises(ValueError, match="SMALLEST_API_KEY"):
        OpenAIClient.electron()


def test_electron_has_a_key_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMALLEST_API_KEY", "theirs")
    assert OpenAIClient.electron().model == "electron"


@pytest.mark.parametrize("stream", [True, False])
async def test_a_failure_is_ours_and_shows_no_key(
    client: OpenAIClient, server: Server, stream: bool
) -> None:
    server.replies.append(openai_server.status(401, "bad key secret-key"))
    with pytest.raises(ModelError, match="check OPENAI_API_KEY") as failed:
        await client.chat(HELLO, stream=stream)
    assert failed.value.status == 401
    assert "secret-key" not in str(failed.value)


async def test_an_answer_without_its_end_is_an_error(client: OpenAIClient, server: Server) -> None:
    server.replies.append(openai_server.unended(*openai_server.said("Hi"), whole=False))
    with pytest.raises(ModelError):
        await chunks(client)
    server.replies.append(openai_server.stream(*openai_server.said("Hi"), openai_server.DONE))
    with pytest.raises(ModelError, match="cut off"):
        await chunks(client)


async def test_whoever_stops_listening_hangs_up(client: OpenAIClient, server: Server) -> None:
    server.replies.append(
        openai_server.stream(*openai_server.said("Hi"), after=openai_server.never)
    )
    answer = await client.chat(HELLO, stream=True)
    assert (await anext(answer)).content == "Hi"
    await answer.aclose()
    await asyncio.wait_for(server.hung_up.wait(), 10)


async def test_a_client_can_be_used_again_after_it_let_go(
    client: OpenAIClient, server: Server
) -> None:
    server.replies += [whole("One."), whole("Two.")]
    assert (await client.chat(HELLO)).content == "One."
    await client.aclose()
    assert (await client.chat(HELLO)).content == "Two."


def test_one_client_serves_two_event_loops() -> None:
    with openai_server_elsewhere() as server:
        client = OpenAIClient("gpt-4o", "k", server.url)
        server.replies += [whole("One."), whole("Two.")]
        assert asyncio.run(client.chat(HELLO)).content == "One."
        assert asyncio.run(client.chat(HELLO)).content == "Two."


def openai_server_elsewhere() -> Any:
    from tests.agents.http_server import elsewhere

    return elsewhere(openai_server.openai_server)


# -- the context


def test_the_messages_of_a_context_are_a_list_of_its_own() -> None:
    context = ContextManager()
    given: list[dict[str, Any]] = [{"role": "user", "content": "a"}]
    context.set_messages(given)
    context.add_message({"role": "user", "content": "b"})
    context.add_messages([{"role": "user", "content": "c"}])
    assert [message["content"] for message in context.messages] == ["a", "b", "c"]
    assert len(given) == 1
    context.messages.pop()
    assert [message["content"] for message in context.messages] == ["a", "b"]
    context.set_messages(context.messages)
    assert len(context.messages) == 2


SYSTEM, THEIRS = {"role": "system", "content": "own"}, {"role": "system", "content": "theirs"}
OLD, NEW = {"role": "user", "content": "old"}, {"role": "user", "content": "new"}


@pytest.mark.parametrize(
    ("own", "told", "after"),
    [
        ([SYSTEM, OLD], [THEIRS, NEW], [SYSTEM, NEW]),
        ([OLD], [THEIRS, NEW], [THEIRS, NEW]),
        ([OLD], [NEW], [NEW]),
        ([SYSTEM, OLD], [THEIRS], [SYSTEM, OLD]),
        ([SYSTEM, OLD], [], [SYSTEM, OLD]),
    ],
)
def test_a_request_that_carries_the_conversation_replaces_the_context(
    own: list[dict[str, Any]], told: list[dict[str, Any]], after: list[dict[str, Any]]
) -> None:
    assert synchronized(own, told) == after


def test_zero_and_none_are_given_and_not_given_is_false() -> None:
    assert is_given(0)
    assert is_given(None)
    assert not is_given(NOT_GIVEN)
    assert not NOT_GIVEN
    assert repr(NOT_GIVEN) == "NOT_GIVEN"
