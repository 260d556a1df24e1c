"""Swarms of several agents who may go to each other, for tests of navigation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from tests.agents.histories import bodies, check_whole
from tests.swarm.stage import SWARM, Stage

from tertulia import Agent, Runtime, Swarm
from tertulia.swarm import ClientSession
from tertulia.testing import ScriptedModel

NAMES = ("triage", "sales", "refunds")


class Crew:
    """Triage, sales and refunds, each with its model, on a runtime."""

    def __init__(
        self, stage: Stage, *, tools: Sequence[Callable[..., Any]] = (), **options: Any
    ) -> None:
        self.models = {name: ScriptedModel(name=name) for name in NAMES}
        agents = [
            Agent(
                name=name,
                model=model,
                tools=list(tools),
                handoffs=[other for other in NAMES if other != name],
            )
            for name, model in self.models.items()
        ]
        self.swarm = Swarm(SWARM, agents=agents, **options)
        self.runtime: Runtime = stage.runtime(self.swarm)

    def script(self, **steps: Any) -> None:
        """What the models answer next: a step, or a list of steps in a tuple."""
        for name, given in steps.items():
            several = cast("tuple[Any, ...]", given) if isinstance(given, tuple) else (given,)
            self.models[name].add(*several)

    def client(self, client_id: str = "ann") -> ClientSession:
        return self.runtime.client_session(client_id, self.swarm)

    def asked(self, name: str) -> list[tuple[str, str]]:
        """What an agent was asked with last: roles and texts."""
        return [(m.role, m.text) for m in self.models[name].last_request.messages]


async def moves_of(client: ClientSession) -> list[tuple[str, str]]:
    """The changes of agent in the log."""
    return [(body["from"], body["to"]) for body in await bodies(client.session, "handoff")]


async def check(client: ClientSession) -> None:
    """The history can be read by a provider, the log holds, and nothing is left open."""
    await check_whole(client.session)
