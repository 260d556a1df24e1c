"""Two agents with tools of every kind, for turns that die and go on in another process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, cast

from tertulia import Agent, RunContext, tool
from tertulia.testing.models import ScriptedModel, call

Inside = Callable[[str, str], None]
"""Told that a tool runs, with the key of its call."""
Pause = Callable[[str], None]
"""Called where a script says so: the model was asked, and does not answer yet."""

USER = "kim"


def steps(script: Iterable[Any], pause: Pause) -> list[Any]:
    """A script of JSON as steps of a model: text, lists of [tool, arguments], and pauses."""
    return [_step(each, pause) for each in script]


def _step(data: Any, pause: Pause) -> Any:
    if isinstance(data, str):
        return data
    if isinstance(data, list):
        calls = cast("list[tuple[str, dict[str, Any]]]", data)
        return [call(name, **arguments) for name, arguments in calls]

    async def paused(_: object) -> Any:
        await asyncio.to_thread(pause, data["pause"])
        return _step(data["then"], pause)

    return paused


class Crew:
    """Ann, who may hand over to Bob, and their tools; `inside` is told of each run."""

    def __init__(self, mine: Iterable[Any], theirs: Iterable[Any], inside: Inside) -> None:
        @tool
        def charge(context: RunContext, what: str = "") -> str:
            """Charge a card: nobody knows what a second time would do."""
            inside(f"charge {what}", context.key)
            return f"charged {what}"

        @tool(idempotent=True)
        def put(context: RunContext, what: str = "") -> str:
            """Put something in its place."""
            inside(f"put {what}", context.key)
            return f"put {what}"

        @tool(read_only=True)
        def look(context: RunContext, what: str = "") -> str:
            """Look at something."""
            inside(f"look {what}", context.key)
            return f"saw {what}"

        @tool
        def count(context: RunContext) -> str:
            """Count, in the state of the session, of the user and of the turn."""
            inside("count", context.key)
            state = context.state
            for scope in (state, state.user):
                scope["count"] = scope.get("count", 0) + 1
            state.temp["count"] = "never written"
            return f"{state['count']} for {context.metadata.get('who')}"

        @tool(requires_approval=True)
        def refund(context: RunContext, what: str = "") -> str:
            """Give money back."""
            inside(f"refund {what}", context.key)
            return f"refunded {what}"

        tools = [charge, put, look, count, refund]
        self.mine, self.theirs = ScriptedModel(*mine), ScriptedModel(*theirs)
        self.bob = Agent("bob", self.theirs, tools=tools)
        self.ann = Agent("ann", self.mine, tools=tools, handoffs=[self.bob])
