"""Tertulia: a session runtime for AI agents."""

from tertulia.events import Event
from tertulia.messages import Message, ToolCall
from tertulia.runtime import Runtime, configure
from tertulia.session import Session
from tertulia.stores import MemoryStore, SessionStore, SQLiteStore, open_store

__version__ = "0.1.0"

__all__ = [
    "Event",
    "MemoryStore",
    "Message",
    "Runtime",
    "SQLiteStore",
    "Session",
    "SessionStore",
    "ToolCall",
    "configure",
    "open_store",
]
