"""What makes vectors of texts, and which one is meant."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from tertulia.errors import ConfigurationError
from tertulia.stores.aside import aside

OFF = "off"
LOCAL = "local"
VARIABLE = "TERTULIA_EMBEDDER"


@runtime_checkable
class Embedder(Protocol):
    """Makes vectors of texts; texts that mean the same point the same way.

    It is shared by tasks, threads and event loops.
    """

    @property
    def name(self) -> str:
        """Which model it is: vectors of embedders with different names are never compared."""
        ...

    @property
    def dimensions(self) -> int | None:
        """How many numbers a vector has; None where that is seen only in its first answer."""
        ...

    async def embed(self, texts: list[str], *, query: bool = False) -> Sequence[Sequence[float]]:
        """A vector for each text; `query` where they are to be searched with, not to be found.

        Raises ModelError.
        """
        ...


def check(asked: Embedder | str | None) -> Embedder | str | None:
    """What was asked for. Raises ConfigurationError where that cannot be an embedder."""
    if asked is None or (isinstance(asked, Embedder) and not isinstance(asked, type)):
        return asked
    if isinstance(asked, str):
        kind, colon, name = asked.partition(":")
        if asked in (OFF, LOCAL) or (kind and colon and name and asked.isprintable()):
            return asked
    raise ConfigurationError(
        f"{asked!r} is no embedder; pass an Embedder, a name like "
        '"openai:text-embedding-3-small", "local", "local:FOLDER", or "off"'
    )


async def choose(asked: Embedder | str | None) -> Embedder | None:
    """The embedder that is meant; None for none.

    Raises ConfigurationError and MissingExtra where what was named is not here.
    """
    wanted = asked or check(os.environ.get(VARIABLE) or None)
    if wanted is None:
        return await aside(_installed)
    if not isinstance(wanted, str):
        return wanted
    if wanted == OFF:
        return None
    kind, _, name = wanted.partition(":")
    if kind == LOCAL:
        return await aside(lambda: _local(name or None))
    from tertulia.memory.providers import ProviderEmbedder

    return ProviderEmbedder.named(wanted)


def _installed() -> Embedder | None:
    from tertulia.memory import local

    return local.installed()


def _local(name: str | None) -> Embedder:
    from tertulia.memory import local

    return local.load(name)
