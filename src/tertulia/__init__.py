"""Tertulia: a session runtime for AI agents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tertulia.events import Event
from tertulia.messages import Message, ToolCall
from tertulia.runtime import Runtime, configure
from tertulia.session import Session
from tertulia.stores import MemoryStore, SessionStore, SQLiteStore, open_store

if TYPE_CHECKING:
    from tertulia.agents import Agent, LanguageModel, tool

__version__ = "0.1.0"

__all__ = [
    "Agent",
    "Event",
    "LanguageModel",
    "MemoryStore",
    "Message",
    "Runtime",
    "SQLiteStore",
    "Session",
    "SessionStore",
    "ToolCall",
    "configure",
    "open_store",
    "tool",
]

_DOORS = frozenset(("Agent", "LanguageModel", "tool"))


def __getattr__(name: str) -> Any:
    """Agents are imported when they are asked for: sessions alone do without them."""
    if name not in _DOORS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tertulia import agents

    return getattr(agents, name)
