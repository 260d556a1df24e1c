"""Who answers the blocks of the pages: a script in this process, or a provider's wire format.

A server on this machine speaks the wire format on a thread of its own, so that the synchronous
calls of the pages do not hold it up.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import partial
from types import ModuleType
from typing import Any, Protocol

from tests.agents.http_server import Reply, Server

from tertulia import Agent, ToolCall
from tertulia.testing import ScriptedModel

Step = str | dict[str, Any] | ToolCall
"""What is answered: text, a structured answer, a tool call."""
Seen = list[tuple[str, str]]
"""The messages of a request: role and text."""


class Player(Protocol):
    """Answers what a test says, and tells what it was asked with."""

    @property
    def unnamed(self) -> Callable[..., Agent]:
        """What makes an agent that names no model, as ``Agent`` on the page does."""
        ...

    def plays(self, *steps: Step) -> None:
        """Say what is answered next."""
        ...

    def agent(self, **options: Any) -> Agent:
        """An agent whose model answers so."""
        ...

    def requests(self) -> list[Seen]:
        """What the model was asked with, oldest first."""
        ...

    def asked(self) -> list[dict[str, Any]]:
        """How each of them was to be answered: temperature and max_tokens, where they were said."""
        ...


class Scripted:
    """A script in this process."""

    def __init__(self) -> None:
        self.model = ScriptedModel()

    @property
    def unnamed(self) -> Callable[..., Agent]:
        return partial(Agent, model=self.model)

    def plays(self, *steps: Step) -> None:
        self.model.add(*steps)

    def agent(self, **options: Any) -> Agent:
        return Agent(model=self.model, **options)

    def requests(self) -> list[Seen]:
        return [_with_system(request) for request in self.model.requests]

    def asked(self) -> list[dict[str, Any]]:
        found = [(r.temperature, r.max_tokens) for r in self.model.requests]
        return [_said(temperature, most) for temperature, most in found]


class Provider:
    """The real client of a provider, and a server that answers it."""

    def __init__(self, wire: ModuleType, server: Server) -> None:
        self.wire = wire
        self.server = server

    @property
    def unnamed(self) -> Callable[..., Agent]:
        return Agent

    def plays(self, *steps: Step) -> None:
        self.server.replies += [self._reply(step) for step in steps]

    def agent(self, **options: Any) -> Agent:
        provider, _, model = str(self.wire.MODEL).partition(":")
        return Agent(provider=provider, model=model, **options)

    def requests(self) -> list[Seen]:
        return [list(_seen(request)) for request in self.server.requests]

    def asked(self) -> list[dict[str, Any]]:
        return [
            _said(
                request.get("temperature"),
                request.get("max_completion_tokens", request.get("max_tokens")),
            )
            for request in self.server.requests
        ]

    def _reply(self, step: Step) -> Reply:
        if isinstance(step, ToolCall):
            return self.wire.calls((step.id, step.name, json.dumps(step.arguments)))
        return self.wire.text(*_words(json.dumps(step) if isinstance(step, dict) else step))


@contextmanager
def provider_thread(wire: ModuleType) -> Generator[Provider]:
    """A provider's server, on a thread with a loop of its own; `wire` is the module of it."""
    ready: list[Server] = []
    up, loop, over = threading.Event(), asyncio.new_event_loop(), asyncio.Event()

    async def serve() -> None:
        async with wire.server() as server:
            ready.append(server)
            up.set()
            await over.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    try:
        assert up.wait(30)
        yield Provider(wire, ready[0])
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(30)
        loop.close()


def settings(player: Provider) -> dict[str, str]:
    """What the environment has to say for the provider's client to come here."""
    return {
        player.wire.KEY: "sk-of-a-test",
        player.wire.ADDRESS: player.server.url,
        "TERTULIA_MODEL": player.wire.MODEL,
    }


def _words(said: str) -> Iterator[str]:
    """A text in pieces, as a model would stream it."""
    for number, word in enumerate(said.split(" ")):
        yield word if number == 0 else f" {word}"


def _seen(request: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The messages of a request; where one message holds several, each of them."""
    if request.get("system"):
        yield "system", _text(request["system"])
    for message in request["messages"]:
        blocks: list[Any] = message["content"] if isinstance(message.get("content"), list) else []
        kinds = {block.get("type") for block in blocks}
        if not kinds & {"tool_use", "tool_result"}:
            yield message["role"], _text(message.get("content"))
            continue
        if "tool_use" in kinds:
            yield "assistant", _text([block for block in blocks if block["type"] == "text"])
        for block in blocks:
            if block["type"] == "tool_result":
                yield "tool", _text(block["content"])
            elif "tool_use" not in kinds:
                yield message["role"], block["text"]


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content or ())


def _with_system(request: Any) -> Seen:
    seen = [(message.role, message.text) for message in request.messages]
    return [("system", request.system), *seen] if request.system else seen


def _said(temperature: Any, most: Any) -> dict[str, Any]:
    given = {"temperature": temperature, "max_tokens": most}
    return {name: value for name, value in given.items() if value is not None}
