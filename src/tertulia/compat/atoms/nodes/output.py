"""A node that answers."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import AsyncIterator
from typing import Any, cast

from tertulia.compat.atoms.context import ContextManager, synchronized
from tertulia.compat.atoms.events import OutputAgentSettings
from tertulia.compat.atoms.handoffs import is_handoff
from tertulia.compat.atoms.nodes.base import CrewNode
from tertulia.live.output import OutputNode
from tertulia.live.session import AgentSession
from tertulia.wire.events import (
    LiveEvent,
    LLMRequest,
    TranscriptUpdate,
    UpdateSettings,
    UserInterrupt,
)


class OutputCrewNode(CrewNode, OutputNode):
    """Answers each `system.llm.request` with what `generate_response` yields.

    `context` holds the messages for the model: transcripts are added as they come, and a request
    that carries the conversation replaces them. After an event was worked on it goes to
    `on_event`, then to the children. After the call was ended or transferred nothing more is
    answered. `is_interruptible` and `settings.interruptible` together say whether the user can
    interrupt.
    """

    def __init__(self, name: str, is_interruptible: bool = True) -> None:
        super().__init__(name, is_interruptible)
        self.context = ContextManager()
        self.settings = OutputAgentSettings()
        self._made_interruptible = is_interruptible
        self._handoff_started = False

    @abstractmethod
    def generate_response(self) -> AsyncIterator[str]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Yield the pieces of an answer; what it needs of the conversation is in `context`.

        It may be written with a parameter, which gets the messages of the context.
        """
        ...

    async def process_event(self, event: LiveEvent) -> None:
        """Work on an event, hand it to `on_event`, and send it on."""
        await super().process_event(event)
        await self._route(event)
        await self.on_event(event)
        await self.send_event(event)

    async def on_event(self, event: LiveEvent) -> None:
        """Called with every event, after it was worked on."""

    async def send_event(self, event: LiveEvent) -> None:
        """Send an event to the children; the end or the transfer of a call is the last word."""
        if is_handoff(event) and event.direction != "in":
            self._handoff_started = True
        await super().send_event(event)

    def link(
        self,
        session: AgentSession,
        children: tuple[Any, ...],
        parents: tuple[Any, ...],
        *,
        joins: bool,
    ) -> None:
        """Give the node its place in a graph that is locked, and the settings of the client."""
        super().link(session, children, parents, joins=joins)
        self._update_settings(session.init.output_agent_settings or {})

    def interrupt(self, event: UserInterrupt) -> list[LLMRequest]:
        """Cancel the answer that is being given, and those that wait, if that is allowed."""
        self.is_interruptible = self._made_interruptible and bool(self.settings.interruptible)
        return super().interrupt(event)

    async def _route(self, event: LiveEvent) -> None:
        if isinstance(event, LLMRequest):
            if not self._handoff_started:
                self.context.set_messages(synchronized(self.context.messages, event.messages or ()))
                await self._answer(event)
        elif isinstance(event, TranscriptUpdate):
            self.context.add_message({"role": event.role, "content": event.content})
        elif isinstance(event, UpdateSettings):
            self._update_settings(event.settings)

    def _update_settings(self, settings: dict[str, Any]) -> None:
        for name, value in settings.items():
            setattr(self.settings, name, value)

    async def _pieces(self, request: LLMRequest) -> Any:
        generate = cast("Any", self.generate_response)
        told = [self.context.messages] if inspect.signature(generate).parameters else []
        return generate(*told)
