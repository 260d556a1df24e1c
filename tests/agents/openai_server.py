"""A small HTTP server that speaks OpenAI's chat completions as a stream of server-sent events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

Reply = Callable[[asyncio.StreamWriter], Awaitable[None]]


class Server:
    """What it was asked, and what it is to answer."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.headers: list[str] = []
        self.replies: list[Reply] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode().lower()
                length = int(lines.partition("content-length:")[2].split("\r\n")[0])
                self.headers.append(head.decode())
                self.requests.append(json.loads(await reader.readexactly(length)))
                await self.replies.pop(0)(writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


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


def stream(*pieces: bytes, whole: bool = True) -> Reply:
    """Answer with a stream; one that is not whole breaks the connection at its end."""

    async def reply(writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )
        for piece in pieces:
            writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            await writer.drain()
        if whole:
            writer.write(b"0\r\n\r\n")
        else:
            raise ConnectionError

    return reply


def text(*words: str) -> Reply:
    """Answer with text."""
    chunks = [chunk({"role": "assistant", "content": word}) for word in words]
    return stream(*chunks, chunk({}, "stop"), USAGE, DONE)


def call(name: str, *arguments: str) -> Reply:
    """Answer with a tool call, its arguments in pieces."""
    first = {"index": 0, "id": "call_1", "type": "function",
             "function": {"name": name, "arguments": ""}}  # fmt: skip
    pieces = [
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]})
        for piece in arguments
    ]
    return stream(chunk({"tool_calls": [first]}), *pieces, chunk({}, "tool_calls"), USAGE, DONE)


def status(code: int, message: str = "no") -> Reply:
    """Answer with an error."""

    async def reply(writer: asyncio.StreamWriter) -> None:
        body = json.dumps({"error": {"message": message, "type": "t", "code": None}}).encode()
        writer.write(
            f"HTTP/1.1 {code} Error\r\ncontent-type: application/json\r\n"
            f"retry-after-ms: 1\r\ncontent-length: {len(body)}\r\n\r\n".encode()
            + body
        )

    return reply


@asynccontextmanager
async def openai_server() -> AsyncGenerator[Server]:
    """A server on a free port of this machine."""
    made = Server()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield made
    finally:
        server.close()
