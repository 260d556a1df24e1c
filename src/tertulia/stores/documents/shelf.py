"""A user's documents, with our errors and a check that nobody else was faster."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar, cast

from tertulia.errors import (
    AgentError,
    OutcomeUnknown,
    StaleWriter,
    StoreCorrupt,
    StoreUnavailable,
)
from tertulia.stores.base import SessionStore
from tertulia.stores.documents import names
from tertulia.stores.documents.saved import Stamp, stamp

T = TypeVar("T")
Document = dict[str, Any]


class Shelf:
    """Loads and saves documents; all of it blocks.

    A store that also has ``save_if(id, data, version) -> bool`` (save only where the document
    that is kept has this number as its ``revision``, 0 for none, and say whether it did) keeps
    others from being overwritten. With the four methods alone they are seen by looking before.
    """

    def __init__(self, documents: SessionStore) -> None:
        self._documents = documents
        self._save_if: Callable[[str, Document, int], bool] | None = getattr(
            documents, "save_if", None
        )

    def load(self, name: str) -> Document | None:
        """The document of that name. Raises StoreUnavailable and StoreCorrupt."""
        found: Any = self._ask(lambda: self._documents.load(name), f"loading {name!r}")
        if found is not None and not isinstance(found, dict):
            raise StoreCorrupt(f"document {name!r} is a {type(found).__name__}, no mapping")
        return cast("Document | None", found)

    def names(self) -> list[str]:
        """The documents that hold sessions."""
        found = self._ask(self._documents.list_sessions, "listing")
        return [name for name in found if names.is_session(name)]

    def all_names(self) -> list[str]:
        """Every document."""
        return self._ask(self._documents.list_sessions, "listing")

    def save(self, name: str, data: Document, expected: Stamp) -> Stamp:
        """Save a document where nobody else did since `expected`; gives its new stamp.

        Raises StaleWriter, StoreUnavailable (nothing was saved) and OutcomeUnknown.
        """
        made = json.loads(json.dumps(data))
        written = stamp(made)
        try:
            if self._save_if is not None:
                done = self._save_if(name, made, expected.revision)
            else:
                done = stamp(self.load(name)) == expected
                if done:
                    self._documents.save(name, made)
        except AgentError:
            raise
        except Exception as error:
            self._resolve(name, written, error)
            return written
        if not done:
            raise StaleWriter(f"document {name!r} was saved by somebody else; nothing was written")
        return written

    def delete(self, name: str) -> bool:
        """Forget a document. Raises StoreUnavailable."""
        return self._ask(lambda: self._documents.delete(name), f"deleting {name!r}")

    def _resolve(self, name: str, written: Stamp, error: Exception) -> None:
        """After an error while saving: was it saved? Only reading tells."""
        try:
            found = stamp(self.load(name))
        except AgentError:
            raise OutcomeUnknown(
                f"saving document {name!r} failed, and it cannot be read either: {error}"
            ) from error
        if found != written:
            raise StoreUnavailable(f"document {name!r} could not be saved: {error}") from error

    def _ask(self, ask: Callable[[], T], what: str) -> T:
        try:
            return ask()
        except AgentError:
            raise
        except Exception as error:
            raise StoreUnavailable(f"{what} failed in the store of documents: {error}") from error
