"""A small HTTP server that speaks OpenAI's /v1/embeddings."""

from __future__ import annotations

import asyncio
import base64
import json
from array import array
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

Answer = dict[str, Any]


def meaning(text: str) -> list[float]:
    """What the server's model thinks of a text: about health, about food, or about neither."""
    lowered = text.lower()
    health = sum(word in lowered for word in ("migraine", "headache", "pill"))
    food = sum(word in lowered for word in ("pasta", "dinner", "noodles"))
    return [float(health), float(food), 0.1]


class Server:
    """What it was asked, and how it answers."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.keys: list[str] = []
        self.connections = 0
        self.open = 0
        self.url = ""
        self.status = 200
        self.change: Callable[[Answer], Answer] = lambda answer: answer

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        self.connections += 1
        self.open += 1
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode():
                length = int(head.lower().partition("content-length:")[2].split("\r\n")[0])
                asked = json.loads(await reader.readexactly(length))
                self.paths.append(head.split()[1])
                self.keys.append(head.lower().partition("authorization: bearer ")[2].split()[0])
                self.requests.append(asked)
                writer.write(self._answer(asked))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open -= 1
            writer.close()

    def _answer(self, asked: dict[str, Any]) -> bytes:
        given = asked["input"]
        texts = [given] if isinstance(given, str) else given
        data = [
            {"object": "embedding", "index": n, "embedding": _encoded(meaning(text), asked)}
            for n, text in enumerate(texts)
        ]
        usage = {"prompt_tokens": len(texts), "total_tokens": len(texts)}
        answer = {"object": "list", "data": data, "model": asked["model"], "usage": usage}
        if self.status != 200:
            answer = {"error": {"message": "not now", "type": "t", "code": None}}
        body = json.dumps(self.change(answer)).encode()
        return (
            f"HTTP/1.1 {self.status} X\r\ncontent-type: application/json\r\n"
            f"retry-after-ms: 1\r\ncontent-length: {len(body)}\r\n\r\n".encode()
            + body
        )


def _encoded(vector: list[float], asked: dict[str, Any]) -> Any:
    if asked.get("encoding_format") == "base64":
        return base64.b64encode(array("f", vector).tobytes()).decode()
    return vector


@asynccontextmanager
async def embeddings_server() -> AsyncGenerator[Server]:
    """A server on a free port of this machine."""
    made = Server()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield made
    finally:
        server.close()
