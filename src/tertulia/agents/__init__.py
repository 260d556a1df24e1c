"""Agents: what drives the turns of a session, with a model and tools."""

from tertulia.agents.agent import Agent
from tertulia.agents.context import RunContext
from tertulia.agents.models import LanguageModel, Model
from tertulia.agents.response import HandoffMade, Response, StreamEvent
from tertulia.agents.router import AgentRouter
from tertulia.agents.streaming import AsyncStream, Stream
from tertulia.agents.tools import Tool, tool
from tertulia.usage import Usage

__all__ = [
    "Agent",
    "AgentRouter",
    "AsyncStream",
    "HandoffMade",
    "LanguageModel",
    "Model",
    "Response",
    "RunContext",
    "Stream",
    "StreamEvent",
    "Tool",
    "Usage",
    "tool",
]
