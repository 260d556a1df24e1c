"""A node that answers as one of several sub-agents, and moves between them by fixed rules."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Any

from tertulia.compat.atoms.clients.types import ToolCall
from tertulia.compat.atoms.nodes.output import OutputCrewNode
from tertulia.compat.atoms.tools.registry import ToolRegistry
from tertulia.errors import InvalidInput
from tertulia.wire.events import AgentLog

log = logging.getLogger(__name__)

Predicate = Callable[[dict[str, Any]], Any]


@dataclass
class SubAgent:
    """A system prompt, and the tools that go with it."""

    id: str
    prompt: str
    tools: list[Callable[..., Any]] = field(default_factory=list[Callable[..., Any]])


@dataclass(frozen=True)
class Transition:
    """A way from one sub-agent to another; without `when` it is taken where no other is."""

    source: str
    target: str
    when: Predicate | None = None


class DeterministicRouter(OutputCrewNode):
    """Answers with the prompt and the tools of the active sub-agent, then moves on.

    After each answer the first transition of the active sub-agent is taken whose `when` holds
    for `state`; one without `when` is tried last. A `when` that raises does not hold. Each move,
    the first one too, is told as `agent.log` ``agent.transition``. A turn has one round of tools.
    """

    def __init__(self, name: str, llm: Any, start: str) -> None:
        super().__init__(name)
        self.llm = llm
        self.state: dict[str, Any] = {}
        self._first = start
        self._sub_agents: dict[str, SubAgent] = {}
        self._registries: dict[str, ToolRegistry] = {}
        self._transitions: list[Transition] = []
        self._active: str | None = None

    @property
    def active(self) -> str | None:
        """The id of the sub-agent that answers next; None before the first answer."""
        return self._active

    def add_sub_agent(self, sub: SubAgent) -> DeterministicRouter:
        """Add a sub-agent. Raises InvalidInput for an id that is there already."""
        if sub.id in self._sub_agents:
            raise InvalidInput(f"duplicate sub-agent id: {sub.id!r}")
        registry = ToolRegistry()
        registry.set_owner(self)
        for function in sub.tools:
            registry.register(function)
        self._sub_agents[sub.id] = sub
        self._registries[sub.id] = registry
        return self

    def add_transition(
        self, source: str, target: str, when: Predicate | None = None
    ) -> DeterministicRouter:
        """Add a way; `when` gets the state. Ways are tried in the order in which they are added."""
        self._transitions.append(Transition(source, target, when))
        return self

    def set_state(self, **kwargs: Any) -> None:
        """Set keys of the state."""
        self.state.update(kwargs)

    def validate(self) -> None:
        """Raise InvalidInput where something names a sub-agent that is not there."""
        named = [("start", self._first)]
        for each in self._transitions:
            named += [("transition source", each.source), ("transition target", each.target)]
        for role, name in named:
            if name not in self._sub_agents:
                raise InvalidInput(f"{role} {name!r} is not a registered sub-agent")

    async def generate_response(self) -> AsyncGenerator[str]:
        """The answer of the active sub-agent; then it moves on. Raises InvalidInput."""
        if self._active is None:
            self.validate()
            await self._enter(self._first)
        active = self._sub_agents[self._active or self._first]
        self._prompt(active.prompt)
        async for text in self._said(self._registries[active.id]):
            yield text
        following = self._next(active.id)
        if following is not None:
            await self._enter(following)

    async def _said(self, tools: ToolRegistry) -> AsyncGenerator[str]:
        schemas = tools.get_schemas()
        if schemas:
            response = await self.llm.chat(self.context.messages, tools=schemas)
            calls: list[ToolCall] = response.tool_calls or []
            if not calls:
                yield response.content or ""
                return
            results = await tools.execute(calls)
            said = {"role": "assistant", "content": response.content or ""}
            self.context.add_message({**said, "tool_calls": [call.to_dict() for call in calls]})
            self.context.add_messages(result.to_message() for result in results)
        async for chunk in await self.llm.chat(self.context.messages, stream=True):
            if chunk.content:
                yield chunk.content

    def _prompt(self, prompt: str) -> None:
        """Make a prompt the only system message."""
        turns = [each for each in self.context.messages if each.get("role") != "system"]
        self.context.set_messages([{"role": "system", "content": prompt}, *turns])

    def _next(self, source: str) -> str | None:
        ways = [each for each in self._transitions if each.source == source]
        for way in ways:
            if way.when is not None and self._holds(way.when, way):
                return way.target
        return next((way.target for way in ways if way.when is None), None)

    def _holds(self, when: Predicate, way: Transition) -> bool:
        try:
            return bool(when(self.state))
        except Exception as error:
            log.warning("the way from %s to %s: %r", way.source, way.target, error)
            return False

    async def _enter(self, target: str) -> None:
        left, self._active = self._active, target
        if left == target:
            return
        state = json.loads(json.dumps(self.state, default=str))
        payload = {"from": left, "to": target, "state": state}
        await self.send_event(AgentLog(name="agent.transition", payload=payload))
