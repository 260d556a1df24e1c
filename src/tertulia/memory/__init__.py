"""Memory: what is known of a user or of an app, across all sessions."""

from tertulia.memory.embedders import Embedder
from tertulia.memory.entries import MemoryEntry
from tertulia.memory.memory import Memory
from tertulia.memory.services import MemoryService, TextMemoryService, VectorMemoryService

__all__ = [
    "Embedder",
    "Memory",
    "MemoryEntry",
    "MemoryService",
    "TextMemoryService",
    "VectorMemoryService",
]
