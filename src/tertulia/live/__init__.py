"""Live sessions: an event graph for each connection, on the durable session of the same id."""

from __future__ import annotations

from tertulia.live.agent import AgentNode
from tertulia.live.nodes import BackgroundNode, Node
from tertulia.live.output import OutputNode
from tertulia.live.session import AgentSession, Settings

__all__ = ["AgentNode", "AgentSession", "BackgroundNode", "Node", "OutputNode", "Settings"]
