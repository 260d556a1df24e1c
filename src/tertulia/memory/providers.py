"""Embeddings of a provider, through pydantic-ai; imported on a thread at the first use.

A client belongs to the event loop that it was made on, so there is one for each loop, closed when
the loop ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tertulia.agents.failures import failure
from tertulia.agents.kept import Named, PerLoop

if TYPE_CHECKING:
    from pydantic_ai.embeddings import EmbeddingModel
    from pydantic_ai.providers import Provider


class _Connected:
    """A model, and the provider whose client it uses; both belong to the running event loop."""

    def __init__(self, model: EmbeddingModel, provider: Provider[Any]) -> None:
        self.model = model
        self._provider = provider

    async def close(self) -> None:
        """Close the connections."""
        async with self._provider:
            return  # leaving it closes what it made for itself


class ProviderEmbedder:
    """A model of a provider by its full name, such as ``openai:text-embedding-3-small``.

    Keys and addresses come from the provider's own variables: ``OPENAI_API_KEY``,
    ``OPENAI_BASE_URL``, …
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._connected: PerLoop[_Connected] = PerLoop()

    @classmethod
    def named(cls, name: str) -> ProviderEmbedder:
        """The one of this process with a name, as long as its variables stay the same."""
        return _named.get(name)

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
            model = (await self._connected.get(self._made)).model
            result = await model.embed(texts, input_type="query" if query else "document")
            return result.embeddings
        except Exception as error:
            told, cause = failure(error, self._name)
        raise told from cause

    def _made(self) -> _Connected:
        from pydantic_ai.embeddings import infer_embedding_model
        from pydantic_ai.providers import infer_provider

        made: list[Provider[Any]] = []

        def make(kind: str) -> Provider[Any]:
            made.append(infer_provider(kind))
            return made[0]

        return _Connected(infer_embedding_model(self._name, provider_factory=make), made[0])


_named = Named(ProviderEmbedder)
