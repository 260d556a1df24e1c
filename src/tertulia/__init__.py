"""Tertulia: a session runtime for AI agents."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tertulia.events import Event
from tertulia.messages import Message, ToolCall
from tertulia.runtime import Runtime, configure
from tertulia.session import Session
from tertulia.stores import MemoryStore, SessionStore, SQLiteStore, open_store

if TYPE_CHECKING:
    from tertulia.agents import Agent, AgentRouter, LanguageModel, RunContext, tool
    from tertulia.bus import BusEvent
    from tertulia.entity import Entity, query
    from tertulia.live import AgentNode, AgentSession, BackgroundNode, Node, OutputNode
    from tertulia.memory import Memory, VectorMemoryService
    from tertulia.server import JWT, AgentApp, Telephony, Token
    from tertulia.swarm import Answer, ClientSession, Policy, Rescue, Swarm
    from tertulia.swarm.node import SwarmNode
    from tertulia.wire.events import LiveEvent

__version__ = "0.1.0"

__all__ = [
    "JWT",
    "Agent",
    "AgentApp",
    "AgentNode",
    "AgentRouter",
    "AgentSession",
    "Answer",
    "BackgroundNode",
    "BusEvent",
    "ClientSession",
    "Entity",
    "Event",
    "LanguageModel",
    "LiveEvent",
    "Memory",
    "MemoryStore",
    "Message",
    "Node",
    "OutputNode",
    "Policy",
    "Rescue",
    "RunContext",
    "Runtime",
    "SQLiteStore",
    "Session",
    "SessionStore",
    "Swarm",
    "SwarmNode",
    "Telephony",
    "Token",
    "ToolCall",
    "VectorMemoryService",
    "configure",
    "open_store",
    "query",
    "tool",
]

_DOORS = {
    "JWT": "server",
    "Agent": "agents",
    "AgentApp": "server",
    "AgentNode": "live",
    "AgentRouter": "agents",
    "AgentSession": "live",
    "Answer": "swarm",
    "BackgroundNode": "live",
    "BusEvent": "bus",
    "ClientSession": "swarm",
    "Entity": "entity",
    "LanguageModel": "agents",
    "LiveEvent": "wire.events",
    "Memory": "memory",
    "Node": "live",
    "OutputNode": "live",
    "Policy": "swarm",
    "Rescue": "swarm",
    "RunContext": "agents",
    "Swarm": "swarm",
    "SwarmNode": "swarm.node",
    "Telephony": "server",
    "Token": "server",
    "VectorMemoryService": "memory",
    "query": "entity",
    "tool": "agents",
}


def __getattr__(name: str) -> Any:
    """Agents, live sessions, servers and memory are imported when asked for."""
    if name not in _DOORS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"tertulia.{_DOORS[name]}"), name)
