"""Live sessions on any store of four methods: the session is saved whole at the end of a turn."""

from __future__ import annotations

from tertulia.stores.base import SessionStore
from tertulia.stores.memory import MemoryStore


class DocumentStore(MemoryStore):
    """Placeholder."""

    def __init__(self, documents: SessionStore) -> None:
        super().__init__()
        self.documents = documents
