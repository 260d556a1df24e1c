"""Embeddings of a provider, through pydantic-ai; imported on a thread at the first use.

A client belongs to the event loop that it was made on, so there is one for each loop, closed when
the loop ends.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from tertulia.agents.failures import failure, key_of, prefix_of
from tertulia.stores.aside import aside

if TYPE_CHECKING:
    from pydantic_ai.embeddings import EmbeddingModel
    from pydantic_ai.providers import Provider

Loop = asyncio.AbstractEventLoop

_named: dict[tuple[str, tuple[str | None, ...]], ProviderEmbedder] = {}


class ProviderEmbedder:
    """A model of a provider by its full name, such as ``openai:text-embedding-3-small``.

    Keys and addresses come from the provider's own variables: ``OPENAI_API_KEY``,
    ``OPENAI_BASE_URL``, …
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._made: WeakKeyDictionary[Loop, tuple[EmbeddingModel, AsyncGenerator[None]]] = (
            WeakKeyDictionary()
        )

    @classmethod
    def named(cls, name: str) -> ProviderEmbedder:
        """The one of this process with a name, as long as its variables stay the same."""
        prefix = prefix_of(name)
        variables = tuple(os.environ.get(f"{prefix}_{what}") for what in ("API_KEY", "BASE_URL"))
        return _named.setdefault((name, variables), cls(name))

    @property
    def name(self) -> str:
        """The full name."""
        return self._name

    @property
    def dimensions(self) -> int | None:
        """None: the provider's answers tell."""
        return None

    async def embed(self, texts: list[str], *, query: bool = False) -> Sequence[Sequence[float]]:
        """A vector for each text. Raises ModelError, ConfigurationError and MissingExtra."""
        try:
            model = await self._on_this_loop()
            result = await model.embed(texts, input_type="query" if query else "document")
        except Exception as error:
            secret = os.environ.get(key_of(self._name))
            told, cause = failure(error, self._name, [secret] if secret else [])
            raise told from cause
        return result.embeddings

    async def _on_this_loop(self) -> EmbeddingModel:
        loop = asyncio.get_running_loop()
        if loop not in self._made:
            await aside(_load)
        with self._lock:
            found = self._made.get(loop)
            if found is not None:
                return found[0]
            model, provider = _infer(self._name)
            keeper = _keep(provider)
            self._made[loop] = (model, keeper)
        await anext(keeper)
        return model


def _load() -> None:
    import pydantic_ai.embeddings  # noqa: F401  # pyright: ignore[reportUnusedImport]


def _infer(name: str) -> tuple[EmbeddingModel, Provider[Any]]:
    from pydantic_ai.embeddings import infer_embedding_model
    from pydantic_ai.providers import infer_provider

    made: list[Provider[Any]] = []

    def make(kind: str) -> Provider[Any]:
        made.append(infer_provider(kind))
        return made[0]

    return infer_embedding_model(name, provider_factory=make), made[0]


async def _keep(provider: Provider[Any]) -> AsyncGenerator[None]:
    """Holds the client open: a loop that shuts down closes its generators, so this."""
    async with provider:
        yield
