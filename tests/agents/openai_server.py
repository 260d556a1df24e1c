"""OpenAI's chat completions as a stream of server-sent events, and what OpenAI refuses."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from typing import Any, cast

from tests.agents.http_server import Reply, Server, body, hang_up, never, serving, status, stream

__all__ = ["Reply", "Server", "body", "hang_up", "never", "status", "stream"]

MODEL = "openai:gpt-4o"
KEY, ADDRESS = "OPENAI_API_KEY", "OPENAI_BASE_URL"
Made = tuple[str, str, str]
"""A tool call: id, name, arguments as text."""


def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
    """One server-sent event with a part of an answer."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return event({"choices": [choice]})


def event(fields: dict[str, Any]) -> bytes:
    """One server-sent event."""
    body = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m", **fields}
    return b"data: " + json.dumps(body).encode() + b"\n\n"


USAGE = event({"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 3,
                                        "total_tokens": 14}})  # fmt: skip
DONE = b"data: [DONE]\n\n"
MALFORMED = b"data: {not json\n\n"


def said(*words: str) -> list[bytes]:
    """The events of a text that has not ended."""
    return [chunk({"role": "assistant", "content": word}) for word in words]


def called(*calls: Made) -> list[bytes]:
    """The events of tool calls, each in three pieces, that have not ended."""
    return list(_called(*calls))


def _called(*calls: Made) -> Iterator[bytes]:
    for index, (call_id, name, arguments) in enumerate(calls):
        function = {"name": name, "arguments": ""}
        first = {"index": index, "id": call_id, "type": "function", "function": function}
        yield chunk({"tool_calls": [first]})
        middle = len(arguments) // 2
        for piece in (arguments[:middle], arguments[middle:]):
            yield chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})


def ended(reason: str) -> list[bytes]:
    """The events of an end: ``stop``, ``tool_calls``, ``length``, ``content_filter``."""
    return [chunk({}, reason), USAGE]


def text(*words: str, reason: str = "stop") -> Reply:
    """Answer with text."""
    return stream(*said(*words), *ended(reason), DONE)


def calls(*made: Made) -> Reply:
    """Answer with tool calls."""
    return stream(*called(*made), *ended("tool_calls"), DONE)


def call(name: str, *arguments: str) -> Reply:
    """Answer with one tool call, its arguments in pieces."""
    return calls(("call_1", name, "".join(arguments)))


def unended(*pieces: bytes, whole: bool) -> Reply:
    """Answer with events that lack the very last one."""
    return stream(*pieces, whole=whole)


@asynccontextmanager
async def openai_server() -> AsyncGenerator[Server]:
    """A server on a free port of this machine."""
    async with serving(problem, "/v1") as made:
        yield made


server = openai_server
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def problem(request: dict[str, Any], head: str) -> str | None:
    """What OpenAI would refuse in a request."""
    return next(_problems(request, head), None)


def _problems(request: dict[str, Any], head: str) -> Iterator[str]:
    if not head.startswith("POST /v1/chat/completions "):
        yield "there is nothing at this address"
    if "authorization: bearer " not in head.lower():
        yield "there is no key"
    if not request.get("messages"):
        yield "messages is empty"
    yield from _pairing(request["messages"])
    for message in request["messages"]:
        yield from _message(message)
    yield from _tools(request)
    wanted = request.get("response_format", {}).get("json_schema")
    if wanted is not None:
        if not _NAME.fullmatch(wanted["name"]):
            yield f"response_format: the name {wanted['name']!r} is not allowed"
        if wanted.get("strict"):
            yield from strict_problems(wanted["schema"])


def _tools(request: dict[str, Any]) -> Iterator[str]:
    given: list[dict[str, Any]] = request.get("tools") or []
    tools = [tool["function"] for tool in given]
    if "tool_choice" in request and not tools:
        yield "tool_choice is only allowed when tools are specified"
    names = [tool["name"] for tool in tools]
    if len(set(names)) < len(names) or not all(map(_NAME.fullmatch, names)):
        yield f"these names of tools are not unique or not allowed: {names}"
    for tool in tools:
        if tool.get("strict"):
            yield from strict_problems(tool["parameters"])


def _pairing(messages: list[dict[str, Any]]) -> Iterator[str]:
    """Every call is answered, right after it, once, and nothing else is."""
    open_calls: list[str] = []
    seen: set[str] = set()
    for message in messages:
        if message["role"] == "tool":
            if message["tool_call_id"] not in open_calls:
                yield f"no call {message['tool_call_id']!r} precedes this result"
            open_calls.remove(message["tool_call_id"])
            continue
        if open_calls:
            yield f"tool_calls must be followed by results; {open_calls} have none"
        for made in message.get("tool_calls") or ():
            if made["id"] in seen or not 0 < len(made["id"]) <= 40:
                yield f"the id {made['id']!r} is used twice, or too long"
            seen.add(made["id"])
            open_calls.append(made["id"])
    if open_calls:
        yield f"tool_calls must be followed by results; {open_calls} have none"


def _message(message: dict[str, Any]) -> Iterator[str]:
    content: Any = message.get("content")
    parts = cast("list[Any]", content) if isinstance(content, list) else []
    if message["role"] not in ("system", "developer", "user", "assistant", "tool"):
        yield f"there is no role {message['role']!r}"
    if message["role"] == "assistant" and not content and not message.get("tool_calls"):
        yield "an assistant message has content or tool_calls"
    if message["role"] != "assistant" and not isinstance(content, str | list):
        yield f"content of {message['role']} is missing"
    if content == [] or {"type": "text", "text": ""} in parts:
        yield "content has empty parts"
    for made in message.get("tool_calls") or ():
        if not _NAME.fullmatch(made["function"]["name"]):
            yield f"the name {made['function']['name']!r} is not allowed"
        if not isinstance(json.loads(made["function"]["arguments"]), dict):
            yield "arguments are no object"


def strict_problems(schema: Any) -> Iterator[str]:
    """Where a schema is not closed, as strict ones have to be."""
    below: list[Any] = []
    if isinstance(schema, list):
        below = cast("list[Any]", schema)
    if isinstance(schema, dict):
        node = cast("dict[str, Any]", schema)
        if node.get("type") == "object" and node.get("additionalProperties") is not False:
            yield "a strict schema needs additionalProperties: false"
        below = list(node.values())
    for each in below:
        yield from strict_problems(each)
