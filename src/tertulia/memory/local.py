"""Embeddings on this machine, with model2vec, by a model that is here already.

Nothing is downloaded: a model is a folder, or what the cache of Hugging Face has.
"""

from __future__ import annotations

import threading
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from tertulia.errors import ConfigurationError, MissingExtra
from tertulia.stores.aside import aside

DEFAULT = "minishlab/potion-base-8M"
"""The model that ``"local"`` is: it knows English, and has 30 MB."""

_lock = threading.Lock()
_loaded: dict[str, LocalEmbedder] = {}


class LocalEmbedder:
    """Embeds on threads beside the event loop; a short text takes well below a millisecond."""

    def __init__(self, model: Any, name: str) -> None:
        self._model = model
        self._name = name
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The name of the model with a digest of its weights, wherever it lies."""
        return self._name

    @property
    def dimensions(self) -> int | None:
        """How many numbers a vector has."""
        return int(self._model.dim)

    async def embed(self, texts: list[str], *, query: bool = False) -> list[list[float]]:
        """A vector for each text; a query is embedded like any other text."""
        return await aside(lambda: self._encode(texts))

    def _encode(self, texts: list[str]) -> list[list[float]]:
        with self._lock:
            vectors = self._model.encode(texts, use_multiprocessing=False)
        return cast("list[list[float]]", vectors.tolist())


def installed() -> LocalEmbedder | None:
    """The default model, where model2vec and it are here; blocks."""
    if find_spec("model2vec") is None:
        return None
    folder = _cached(DEFAULT)
    return None if folder is None else _open(folder, DEFAULT)


def load(name: str | None) -> LocalEmbedder:
    """The model in a folder, or of a name in the cache; None is the default one; blocks.

    Raises MissingExtra, and ConfigurationError where the model is not here.
    """
    if find_spec("model2vec") is None:
        raise MissingExtra("embeddings", "model2vec, which embeds on this machine,")
    wanted = name or DEFAULT
    folder = Path(wanted) if Path(wanted).is_dir() else _cached(wanted)
    if folder is None:
        raise ConfigurationError(
            f"the embedding model {wanted!r} is not on this machine, and Tertulia downloads none: "
            f'name a folder ("local:FOLDER"), or run: hf download {wanted}'
        )
    return _open(folder, wanted)


def _cached(name: str) -> Path | None:
    """Where the cache of Hugging Face has a model, without asking anybody else."""
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    hub: Any = huggingface_hub
    try:
        return Path(hub.snapshot_download(name, local_files_only=True))
    except (HFValidationError, LocalEntryNotFoundError):
        return None


def _open(folder: Path, name: str) -> LocalEmbedder:
    place = str(folder.resolve())
    with _lock:
        if place not in _loaded:
            _loaded[place] = _read(folder, name)
        return _loaded[place]


def _read(folder: Path, name: str) -> LocalEmbedder:
    from model2vec import StaticModel

    try:
        model: Any = StaticModel.from_pretrained(folder)  # pyright: ignore[reportUnknownMemberType]
        digest = _digest(folder)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigurationError(
            f"the embedding model in {folder} cannot be read: {error}; it must be one that "
            "model2vec can load"
        ) from error
    return LocalEmbedder(model, f"model2vec:{Path(name).name}@{digest}")


def _digest(folder: Path) -> str:
    """What tells the weights of a model from others."""
    found = sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        found.update(path.read_bytes())
    return found.hexdigest()[:12]
