"""Anthropic's messages as a stream of server-sent events, and what Anthropic refuses."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

from tests.agents.http_server import Reply, Server, body, hang_up, never, serving, status, stream
from tests.agents.openai_server import Made, strict_problems

__all__ = ["Reply", "Server", "body", "hang_up", "never", "status", "stream"]

MODEL = "anthropic:claude-sonnet-4-6"
KEY, ADDRESS = "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"
_INLINE = {"claude-opus-4-8"}
"""Models that take system messages between the others."""
_REASONS = {
    "stop": "end_turn",
    "tool_calls": "tool_use",
    "length": "max_tokens",
    "content_filter": "refusal",
}


def event(kind: str, **fields: Any) -> bytes:
    """One server-sent event."""
    data = json.dumps({"type": kind, **fields})
    return f"event: {kind}\ndata: {data}\n\n".encode()


START = event(
    "message_start",
    message={
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 11, "output_tokens": 1},
    },
)
PING = event("ping")
DONE = event("message_stop")
MALFORMED = b"event: content_block_delta\ndata: {not json\n\n"


def _block(index: int, block: dict[str, Any], deltas: list[dict[str, Any]]) -> Iterator[bytes]:
    yield event("content_block_start", index=index, content_block=block)
    for delta in deltas:
        yield event("content_block_delta", index=index, delta=delta)


def said(*words: str) -> list[bytes]:
    """The events of a text that has not ended."""
    deltas: list[dict[str, Any]] = [{"type": "text_delta", "text": word} for word in words]
    return [START, PING, *_block(0, {"type": "text", "text": ""}, deltas)]


def called(*calls: Made) -> list[bytes]:
    """The events of tool calls, each in pieces, that have not ended."""
    pieces = [START]
    for index, (call_id, name, arguments) in enumerate(calls):
        middle = len(arguments) // 2
        deltas: list[dict[str, Any]] = [
            {"type": "input_json_delta", "partial_json": piece}
            for piece in ("", arguments[:middle], arguments[middle:])
        ]
        block: dict[str, Any] = {"type": "tool_use", "id": call_id, "name": name, "input": {}}
        pieces += _block(index, block, deltas)
        if index < len(calls) - 1:
            pieces.append(event("content_block_stop", index=index))
    return pieces


def ended(reason: str, index: int = 0) -> list[bytes]:
    """The events of an end, by OpenAI's names."""
    delta = {"stop_reason": _REASONS[reason], "stop_sequence": None}
    return [
        event("content_block_stop", index=index),
        event("message_delta", delta=delta, usage={"output_tokens": 3}),
    ]


def text(*words: str, reason: str = "stop") -> Reply:
    """Answer with text."""
    if not words:
        return stream(START, *ended(reason)[1:], DONE)
    return stream(*said(*words), *ended(reason), DONE)


def calls(*made: Made) -> Reply:
    """Answer with tool calls."""
    return stream(*called(*made), *ended("tool_calls", len(made) - 1), DONE)


def unended(*pieces: bytes, whole: bool) -> Reply:
    """Answer with events that lack the very last one."""
    return stream(*pieces, whole=whole)


@asynccontextmanager
async def anthropic_server() -> AsyncGenerator[Server]:
    """A server on a free port of this machine."""
    async with serving(problem) as made:
        yield made


server = anthropic_server
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_ID = re.compile(r"[a-zA-Z0-9_-]+")
Blocks = list[dict[str, Any]]


def problem(request: dict[str, Any], head: str) -> str | None:
    """What Anthropic would refuse in a request."""
    return next(_problems(request, head), None)


def _problems(request: dict[str, Any], head: str) -> Iterator[str]:
    if not head.startswith("POST /v1/messages"):
        yield "there is nothing at this address"
    known = ("x-api-key: ", "authorization: bearer ")
    if not any(header in head.lower() for header in known):
        yield "there is no key"
    if "anthropic-version: " not in head.lower():
        yield "there is no version"
    if not request.get("max_tokens", 0) > 0:
        yield "max_tokens is required"
    yield from _order(request["messages"], inline=request["model"] in _INLINE)
    turns = [(message["role"], _blocks(message["content"])) for message in request["messages"]]
    for _, blocks in turns:
        for block in blocks:
            yield from _block_problems(block)
    yield from _pairing(turns)
    for block in _blocks(request.get("system") or []):
        yield from _block_problems(block)
    used = any(block["type"] == "tool_use" for _, blocks in turns for block in blocks)
    yield from _tools(request, used=used)
    wanted = request.get("output_config", {}).get("format")
    if wanted is not None:
        yield from strict_problems(wanted["schema"])


def _tools(request: dict[str, Any], *, used: bool) -> Iterator[str]:
    tools: list[dict[str, Any]] = request.get("tools") or []
    names: list[str] = [tool["name"] for tool in tools]
    if len(set(names)) < len(names) or not all(map(_NAME.fullmatch, names)):
        yield f"these names of tools are not unique or not allowed: {names}"
    if "tool_choice" in request and not tools:
        yield "tool_choice may only be given with tools"
    if used and not tools:
        yield "requests with tool_use or tool_result blocks must define tools"


def _order(messages: list[dict[str, Any]], *, inline: bool) -> Iterator[str]:
    roles = [message["role"] for message in messages]
    if inline and roles[0] != "system":
        roles = [role for role in roles if role != "system"]
    if not roles or roles[0] != "user":
        yield "the first message must be the user's"
    if set(roles) - {"user", "assistant"}:
        yield f"there are no such roles: {roles}"
    if any(one == other for one, other in pairwise(roles)):
        yield f"the roles must alternate: {roles}"
    if roles[-1] != "user":
        yield "the conversation must end with a user message"


def _blocks(content: str | Blocks) -> Blocks:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _pairing(turns: list[tuple[str, Blocks]]) -> Iterator[str]:
    """Every call is answered, in the message after it, before all else, and nothing else is."""
    seen: set[str] = set()
    open_calls: list[str] = []
    for role, blocks in turns:
        if role == "system":
            continue
        if not blocks:
            yield "all messages must have non-empty content"
        results = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
        if sorted(results) != sorted(open_calls):
            yield f"calls {open_calls} were answered with results of {results}"
        if any(block["type"] != "tool_result" for block in blocks[: len(results)]):
            yield "tool_result blocks must come first"
        open_calls = [block["id"] for block in blocks if block["type"] == "tool_use"]
        if open_calls and role != "assistant":
            yield "tool_use blocks can only be in assistant messages"
        if set(open_calls) & seen or len(set(open_calls)) < len(open_calls):
            yield f"tool_use ids must be unique: {open_calls}"
        seen |= set(open_calls)
    if open_calls:
        yield f"calls {open_calls} have no results"


def _block_problems(block: dict[str, Any]) -> Iterator[str]:
    kind = block["type"]
    if kind == "text" and not block["text"].strip():
        yield "text content blocks must contain non-whitespace text"
    elif kind == "tool_use":
        if not _NAME.fullmatch(block["name"]) or not _ID.fullmatch(block["id"]):
            yield f"the name {block['name']!r} or the id {block['id']!r} is not allowed"
        if not isinstance(block["input"], dict):
            yield "input must be an object"
    elif kind == "tool_result":
        for part in _blocks(block.get("content") or []):
            yield from _block_problems(part)
    elif kind == "image":
        if block["source"]["type"] not in ("base64", "url"):
            yield "an image is base64 or a url"
    elif kind != "text":
        yield f"there are no blocks of type {kind!r}"
