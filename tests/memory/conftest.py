"""Stores and a real embedding model for the tests of memory."""

from __future__ import annotations

import copy
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tertulia import MemoryStore, Runtime, SessionStore, SQLiteStore

AXES = (
    ("headache", "migraine", "pain", "medication", "pill"),
    ("pasta", "noodles", "dinner", "cook"),
    ("bicycle", "ride", "helmet"),
)
"""What the words of the test's model mean: those of one line point the same way."""


class Documents(SessionStore):
    """The four methods, on a mapping."""

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {}

    def save(self, session_id: str, data: dict[str, Any]) -> None:
        self.kept[session_id] = copy.deepcopy(data)

    def load(self, session_id: str) -> dict[str, Any] | None:
        return copy.deepcopy(self.kept.get(session_id))

    def delete(self, session_id: str) -> bool:
        return self.kept.pop(session_id, None) is not None

    def list_sessions(self) -> list[str]:
        return list(self.kept)


@pytest.fixture(autouse=True)
def nothing_configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No embedder in the environment, and an empty cache of models."""
    for name in [name for name in os.environ if name.startswith(("TERTULIA_", "OPENAI_"))]:
        monkeypatch.delenv(name)
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "models"))


@pytest.fixture(params=["memory", "sqlite", "documents"])
async def runtime(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Runtime]:
    """A runtime on each kind of store."""
    stores: dict[str, Any] = {
        "memory": MemoryStore,
        "sqlite": lambda: SQLiteStore(tmp_path / "test.db"),
        "documents": Documents,
    }
    async with Runtime(stores[request.param]()) as made:
        yield made


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model2vec model that knows a few words."""
    import numpy
    from model2vec import StaticModel
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.normalizers import Lowercase
    from tokenizers.pre_tokenizers import Whitespace

    words = [word for axis in AXES for word in axis]
    tokenizer: Any = Tokenizer(
        WordLevel({"[UNK]": 0} | {word: n for n, word in enumerate(words, 1)}, "[UNK]")
    )
    tokenizer.normalizer = Lowercase()
    tokenizer.pre_tokenizer = Whitespace()
    vectors = numpy.zeros((len(words) + 1, len(AXES)), dtype="float32")
    for number, word in enumerate(words, 1):
        vectors[number] = [0.1 * (number % 3) + (word in axis) for axis in AXES]
    folder = tmp_path_factory.mktemp("models") / "small"
    StaticModel(vectors, tokenizer).save_pretrained(folder)
    return folder
