"""A swarm of two agents with tools, for turns of clients that die and go on elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.crash.crew import steps

from tertulia import Agent, RunContext, Swarm, tool
from tertulia.testing import ScriptedModel

NAMES = ("triage", "sales")


class Guild:
    """Triage and sales; `pause` is called inside of their tools and pauses."""

    def __init__(self, scripts: Mapping[str, Sequence[Any]], pause: Callable[[str], None]) -> None:
        self.ran: list[str] = []

        def inside(name: str) -> None:
            self.ran.append(name)
            pause(f"inside {name}")

        @tool
        def charge() -> str:
            """Charge a card: nobody knows what a second time would do."""
            inside("charge")
            return "charged"

        @tool(idempotent=True)
        def put() -> str:
            """Put something in its place."""
            inside("put")
            return "put"

        @tool
        def count(context: RunContext) -> str:
            """Count, in the state of the client and of the app."""
            for scope in (context.state, context.state.app):
                scope["n"] = scope.get("n", 0) + 1
            return "counted"

        self.models = {
            name: ScriptedModel(*steps(scripts.get(name, ()), pause), name=name) for name in NAMES
        }
        agents = [
            Agent(
                name=name,
                model=self.models[name],
                tools=[charge, put, count],
                handoffs=[other for other in NAMES if other != name],
            )
            for name in NAMES
        ]
        self.swarm = Swarm("shop", agents=agents)
