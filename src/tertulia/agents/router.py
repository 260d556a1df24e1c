"""AgentRouter: one conversation, any of several agents or providers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Literal

from tertulia.agents.agent import Agent
from tertulia.agents.runner import Runner
from tertulia.agents.speakers import Cast, Options
from tertulia.errors import InvalidInput
from tertulia.host import Host
from tertulia.messages import Message
from tertulia.session import Session

Choose = Callable[[str, list[Agent]], Agent | str]
Strategy = Literal["fallback", "round_robin"] | Choose


class AgentRouter(Runner):
    """Several agents on one conversation: ``AgentRouter([a, b]).session().run("hello")``.

    `strategy` says who answers a turn: ``"fallback"`` the first, ``"round_robin"`` each in its
    order, or a function of the request's text and the agents that gives an agent or its name.
    Where the model of that one fails, the next ones go on with the same turn, in order: nothing
    that was said is lost, and no tool runs again. When all have failed, `RoutingError` is raised.
    A part of an answer that was streamed out already is not taken back: then the turn fails.

    Raises InvalidInput for no agents, or an unknown strategy.
    """

    def __init__(
        self,
        agents: Sequence[Agent],
        strategy: Strategy = "fallback",
        *,
        runtime: Host | None = None,
    ) -> None:
        self.agents = list(agents)
        if not self.agents or not all(isinstance(each, Agent) for each in self.agents):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidInput("AgentRouter takes a list of one agent or more")
        names = [agent.name for agent in self.agents if agent.name is not None]
        if len(set(names)) < len(names):
            raise InvalidInput(f"two agents of the router have the same name in {names}")
        if strategy not in ("fallback", "round_robin") and not callable(strategy):
            raise InvalidInput(
                f"strategy={strategy!r} does not exist; use fallback, round_robin or a function"
            )
        self.strategy = strategy
        self._runtime = runtime
        self._turns = itertools.count()

    @property
    def name(self) -> str | None:
        """None: the floor goes to the agent that answers."""
        return None

    def __repr__(self) -> str:
        return f"AgentRouter({self.agents!r})"

    def _cast(self, session: Session, request: Message | None, options: Options) -> Cast:
        first = self._chosen(request)
        start = next(n for n, agent in enumerate(self.agents) if agent is first)
        order = [*self.agents[start:], *self.agents[:start]]
        known = session._conversation.agents  # pyright: ignore[reportPrivateUsage]
        routed = [agent.name for agent in self.agents]
        cast = Cast(first, options, known, order[1:], routed=routed)
        for agent in self.agents:
            agent._make_known(session)  # pyright: ignore[reportPrivateUsage]
        cast.check()
        return cast

    def _chosen(self, request: Message | None) -> Agent:
        """Who answers; a turn that goes on stays with whoever has the floor."""
        if request is None or self.strategy == "fallback":
            return self.agents[0]
        if not callable(self.strategy):
            return self.agents[next(self._turns) % len(self.agents)]
        chosen: Any = self.strategy(request.text, list(self.agents))
        for agent in self.agents:
            if chosen is agent or (isinstance(chosen, str) and chosen == agent.name):
                return agent
        if isinstance(chosen, Coroutine):
            chosen.close()  # the strategy is asynchronous, and nobody awaits what it made
        raise InvalidInput(f"the strategy chose {chosen!r}, which is no agent of this router")
