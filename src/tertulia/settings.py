"""Settings of the process: what `configure` said, else the environment, else the default."""

from __future__ import annotations

import os
from typing import Any

_model: list[Any] = []


def store() -> str:
    """The address of the default store: ``TERTULIA_STORE``, else memory."""
    return os.environ.get("TERTULIA_STORE") or "memory:"


def bus() -> str:
    """The address of the default bus: ``TERTULIA_BUS``, else that of one process."""
    return os.environ.get("TERTULIA_BUS") or "local:"


def model() -> Any:
    """The default model: what was configured, else ``TERTULIA_MODEL``."""
    return _model[0] if _model else os.environ.get("TERTULIA_MODEL") or None


def set_model(model: Any) -> None:
    """Configure the default model."""
    _model[:] = [model]
