"""A node that looks on."""

from __future__ import annotations

from typing import Any

from tertulia.compat.atoms.nodes.base import CrewNode
from tertulia.live.nodes import Node, Seen
from tertulia.wire.events import LiveEvent


class BackgroundCrewNode(CrewNode):
    """Gets the events beside the flow, and answers nothing; its exceptions are warnings.

    Between two nodes it does not cut the flow: every event goes on at once, before the node has
    it, and once only, also where its own code sends it on again.
    """

    def __init__(self, name: str | None = None, is_interruptible: bool = False) -> None:
        super().__init__(name, is_interruptible)
        self._gone_on = Seen()

    async def process_event(self, event: LiveEvent) -> None:
        """Do something with an event; by default nothing."""

    async def send_event(self, event: LiveEvent) -> None:
        """Send an event to the children, unless it went on already."""
        if event not in self._gone_on:
            await super().send_event(event)

    def offer(self, event: LiveEvent) -> bool:
        """Put an event into the inbox, if it need not go on first."""
        return not self._between and super().offer(event)

    async def queue_event(self, event: LiveEvent) -> None:
        """Send an event on, if there is a node to go on to, and put it into the inbox."""
        if self._between and not self._twice(event):
            await super().send_event(event)
            self._gone_on.add(event)
        elif self._between:
            return
        if not await self._inbox.put(event):
            await self._report_full()

    @property
    def _between(self) -> bool:
        children: tuple[Any, ...] = self.children
        return any(isinstance(child, Node) for child in children)

    def _error_severity(self) -> str:
        return "warning"
