"""Models of embeddings that are on this machine already. Nothing is downloaded."""

from __future__ import annotations

from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def cached(name: str) -> Path | None:
    """Where the cache of Hugging Face has a model, without asking anybody else."""
    if find_spec("huggingface_hub") is None:
        return None
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    hub: Any = huggingface_hub
    try:
        return Path(hub.snapshot_download(name, local_files_only=True))
    except (HFValidationError, LocalEntryNotFoundError):
        return None


def packaged(package: str, folder: str) -> Path | None:
    """Where an installed package has a model in one of its folders."""
    found = find_spec(package)
    if found is None or found.origin is None:
        return None
    place = Path(found.origin).parent / folder
    return place if place.is_dir() else None


def digest(folder: Path) -> str:
    """What tells the weights of a model from others."""
    made = sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        made.update(path.read_bytes())
    return made.hexdigest()[:12]
