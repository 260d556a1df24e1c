"""What helps to test stores, agents and sessions: also for those who write their own."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tertulia.testing.callers import SimulatedCaller
    from tertulia.testing.clocks import FrozenClock
    from tertulia.testing.ids import SequentialIds
    from tertulia.testing.models import Pause, ScriptedModel, call
    from tertulia.testing.store_contract import StoreContract

__all__ = [
    "FrozenClock",
    "Pause",
    "ScriptedModel",
    "SequentialIds",
    "SimulatedCaller",
    "StoreContract",
    "call",
]

_HOMES = {
    "FrozenClock": "clocks",
    "Pause": "models",
    "ScriptedModel": "models",
    "SequentialIds": "ids",
    "SimulatedCaller": "callers",
    "StoreContract": "store_contract",
    "call": "models",
}


def __getattr__(name: str) -> Any:
    """Each is imported when it is asked for: who tests a store needs no agents."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
