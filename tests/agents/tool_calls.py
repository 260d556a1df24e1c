"""Calls of tools as a model makes them, for the tests of tools."""

from __future__ import annotations

from typing import Any

from tertulia import Agent, Runtime, ToolCall
from tertulia.agents.tools import tools_of
from tertulia.messages import Message
from tertulia.testing.models import ScriptedModel


async def call(runtime: Runtime, function: Any, arguments: dict[str, Any] | None = None) -> Message:
    """The result that a call of a tool gives to the model."""
    name = tools_of([function]).popitem()[0]
    model = ScriptedModel(ToolCall("c", name, arguments or {}), "Done.")
    session = Agent(model=model, tools=[function], runtime=runtime).session()
    response = await session.run_async("Go")
    return next(message for message in response.messages if message.role == "tool")


async def failure(
    runtime: Runtime, function: Any, arguments: dict[str, Any], name: str | None = None
) -> tuple[str, str]:
    """What the model and the audit are told of a call that fails."""
    known = tools_of([function])
    made = ToolCall("c", name or next(iter(known)), arguments)
    session = Agent(
        model=ScriptedModel(made, "Sorry."), tools=[function], runtime=runtime
    ).session()
    response = await session.run_async("Go")
    assert response.text == "Sorry."
    result = response.messages[2]
    assert result.metadata == {"error": True}
    [event] = await session.events(types="tool.failed")
    return result.text, str((event.body or {})["error"])


def print_nothing() -> None:
    """Do nothing."""
