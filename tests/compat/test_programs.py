"""A program for the other SDK, with each set of its names, runs with its import lines changed."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.agents import openai_server
from tests.agents.http_server import Server
from tests.compat.serving import Frame, served

PROGRAM = (Path(__file__).parent / "programs" / "hotel.txt").read_text()
_IMPORT = re.compile(r"^from smallestai\.atoms\.(?:agent|swarm|crew)", re.MULTILINE)
NAMES = {
    "crew": {},
    "swarm": {
        "CrewSession": "SwarmSession",
        "OutputCrewNode": "OutputSwarmNode",
        "BackgroundCrewNode": "BackgroundSwarmNode",
        "AtomsCrewApp": "AtomsSwarmApp",
    },
    "agent": {
        "CrewSession": "AgentSession",
        "OutputCrewNode": "OutputAgentNode",
        "BackgroundCrewNode": "BackgroundAgentNode",
        "AtomsCrewApp": "AtomsApp",
    },
}


@pytest.fixture
async def model(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    """OpenAI, as the program finds it."""
    async with openai_server.server() as made:
        monkeypatch.setenv("OPENAI_API_KEY", "secret-key")
        monkeypatch.setenv("OPENAI_BASE_URL", made.url)
        monkeypatch.setenv("TERTULIA_STORE", "memory:")
        yield made
    assert made.problems == []
    assert made.replies == []


def program(names: str) -> dict[str, Any]:
    """The program with one set of names, its imports changed."""
    text = PROGRAM.replace("smallestai.atoms.crew", f"smallestai.atoms.{names}")
    for known, wanted in NAMES[names].items():
        text = text.replace(known, wanted)
    left: dict[str, Any] = {"__name__": "hotel"}
    changed = _IMPORT.sub("from tertulia.compat.atoms", text)
    exec(compile(changed, "hotel", "exec", dont_inherit=True), left)
    return left


def told(frames: list[Frame]) -> list[Any]:
    """What matters of frames."""
    return [
        each.get("text") or each.get("name") or each.get("count") or each["type"] for each in frames
    ]


@pytest.mark.parametrize("names", NAMES)
async def test_a_program_of_the_sdk_runs(names: str, model: Server) -> None:
    left = program(names)
    async with served(left["app"]) as server, server.connection() as client:
        begun = {"initial_variables": {"guest": "Ana"}, "conversation_type": "chat"}
        await client.send("system.init", version="1.0.0", session_context=begun)
        assert (await client.next())["type"] == "agent.ready"
        await client.send("system.user.joined")
        assert told(await client.until("agent.speak")) == ["Welcome, Ana."]

        model.replies += [openai_server.text("Good ", "day.")]
        assert await client.ask("hello there") == "Good day."

        model.replies += [
            openai_server.calls(("c1", "book", '{"nights": 2}')),
            openai_server.text("Room 100."),
        ]
        await client.send("agent.transcript.update", role="user", content="a room for two nights")
        await client.send("system.llm.request")
        await client.until("agent.llm.response.start")
        assert told(await client.until("system.llm.request")) == [
            "tool_call_start",
            1,
            "tool_call_end",
            "Room 100.",
            "agent.llm.response.end",
            "system.llm.request",
        ]

        model.replies += [openai_server.calls(("c2", "hang_up", "{}")), openai_server.text("Bye.")]
        await client.send("agent.transcript.update", role="user", content="bye")
        await client.send("system.llm.request")
        assert "agent.end_call" in told(await client.until("agent.end_call"))
        assert await client.closed() == 1000
    model.replies.clear()  # the call may have ended before the model was asked for its last word

    assert left["summaries"] == [{"words": 8, "rooms": {100: ("Ana", 2, False)}}]
    assert [message["role"] for message in model.requests[2]["messages"]] == [
        "system",
        "user",
        "user",
        "assistant",
        "tool",
    ]
    offered = [tool["function"]["name"] for tool in model.requests[0]["tools"]]
    assert offered == ["book", "hang_up"]
