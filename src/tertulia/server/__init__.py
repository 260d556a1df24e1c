"""Live sessions, the HTTP API and phone calls, served: `AgentApp`. Needs the extra `server`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tertulia.errors import MissingExtra

if TYPE_CHECKING:
    from tertulia.server.app import AgentApp
    from tertulia.server.auth import Principal, Token
    from tertulia.server.jwt import JWT
    from tertulia.server.telephony import Telephony

__all__ = ["JWT", "AgentApp", "Principal", "Telephony", "Token"]

_MODULES = {
    "JWT": "jwt",
    "AgentApp": "app",
    "Principal": "auth",
    "Telephony": "telephony",
    "Token": "auth",
}
_NEEDED = ("starlette", "uvicorn", "websockets", "joserfc")


def __getattr__(name: str) -> Any:
    """Each is imported when asked for. Raises MissingExtra."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = importlib.import_module(f"tertulia.server.{_MODULES[name]}")
    except ImportError as error:
        if (error.name or "").partition(".")[0] in _NEEDED:
            raise MissingExtra("server", error.name or "starlette") from error
        raise
    return getattr(module, name)
