"""Live sessions on any store of documents."""

from tertulia.stores.documents.store import DocumentStore

__all__ = ["DocumentStore"]
