"""A live session under the names of the other SDK."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

import msgspec

from tertulia.compat.atoms.events import CallerContext, context_of
from tertulia.compat.atoms.nodes.output import OutputCrewNode
from tertulia.compat.atoms.task_manager import TaskManager
from tertulia.live.session import AgentSession as LiveSession
from tertulia.wire import frames
from tertulia.wire.events import LiveEvent, SystemInit

RECALLED = 200
"""Messages of a conversation that goes on that nodes know of."""


class EventCodec:
    """Events to frames, and the JSON of frames to events."""

    def encode(self, data: LiveEvent) -> bytes:
        """An event as a frame. Raises InvalidFrame."""
        return frames.encode(data)

    def decode(self, data: dict[str, Any]) -> LiveEvent:
        """The event that a JSON object is. Raises InvalidFrame, which says what is wrong."""
        return frames.decode(json.dumps(data))


class CrewSession(LiveSession):
    """One user's live session, as `AtomsCrewApp` makes it for each connection.

    It is our AgentSession, with the SDK's classes in what the client began with.
    """

    task_manager: TaskManager
    """Runs tasks that end with the session."""
    init_event: SystemInit
    """The client's first frame, with the SDK's classes in it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.task_manager = TaskManager()
        context: Any = context_of(self.init.session_context)
        self.init_event = msgspec.structs.replace(self.init, session_context=context)

    @property
    def session_context(self) -> Any:
        """What the client began with, as a `SessionContext` of the SDK; None where it did not
        say."""
        return self.init_event.session_context

    @property
    def initial_variables(self) -> dict[str, Any]:
        """A copy of the variables that the client began with."""
        context = self.session_context
        return {} if context is None else deepcopy(context.initial_variables)

    @property
    def caller(self) -> CallerContext | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Who calls, where the client says so."""
        return None if self.session_context is None else self.session_context.caller

    async def start(self) -> None:
        """As our `start`. Nodes that answer know what was said in a conversation that goes on."""
        if self.resumed:
            await self._recall()
        await super().start()

    async def send_to_websocket(self, event: LiveEvent) -> None:
        """Send an event to the client."""
        await self.send_event(event)

    async def cleanup(self) -> None:
        """End the session: the same as `stop`."""
        await self.stop()

    async def _end(self) -> None:
        await self.task_manager.close()
        await super()._end()

    async def _recall(self) -> None:
        history = await self.conversation.history(limit=RECALLED)
        said = [each for each in history if each.role in ("user", "assistant") and each.text]
        for node in self.nodes:
            if isinstance(node, OutputCrewNode):
                node.context.add_messages({"role": m.role, "content": m.text} for m in said)


AgentSession = SwarmSession = CrewSession
