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
    from tertulia.entity import Entity, query
    from tertulia.memory import Memory, VectorMemoryService

__version__ = "0.1.0"

__all__ = [
    "Agent",
    "AgentRouter",
    "Entity",
    "Event",
    "LanguageModel",
    "Memory",
    "MemoryStore",
    "Message",
    "RunContext",
    "Runtime",
    "SQLiteStore",
    "Session",
    "SessionStore",
    "ToolCall",
    "VectorMemoryService",
    "configure",
    "open_store",
    "query",
    "tool",
]

_DOORS = {
    "Agent": "agents",
    "AgentRouter": "agents",
    "Entity": "entity",
    "LanguageModel": "agents",
    "Memory": "memory",
    "RunContext": "agents",
    "VectorMemoryService": "memory",
    "query": "entity",
    "tool": "agents",
}


def __getattr__(name: str) -> Any:
    """Agents, entities and memory are imported when asked for: sessions alone do without."""
    if name not in _DOORS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"tertulia.{_DOORS[name]}"), name)
