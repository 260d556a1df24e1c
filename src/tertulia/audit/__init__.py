"""The audit: what can be proved about a log, by whoever has the store, a file or a signed head."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tertulia.audit.anchor import Head, check_anchor, generate_key, make_anchor, public_key
    from tertulia.audit.chain import ChainChecker, Verification
    from tertulia.audit.export import Exporter, Source, export_lines
    from tertulia.audit.files import verify_lines
    from tertulia.audit.refold import Refold, RowFacts, verdict
    from tertulia.audit.transcript import export_json, export_markdown

_HOMES = {
    "anchor": ("Head", "check_anchor", "generate_key", "make_anchor", "public_key"),
    "chain": ("ChainChecker", "Verification"),
    "export": ("Exporter", "Source", "export_lines"),
    "files": ("verify_lines",),
    "refold": ("Refold", "RowFacts", "verdict"),
    "transcript": ("export_json", "export_markdown"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "ChainChecker",
    "Exporter",
    "Head",
    "Refold",
    "RowFacts",
    "Source",
    "Verification",
    "check_anchor",
    "export_json",
    "export_lines",
    "export_markdown",
    "generate_key",
    "make_anchor",
    "public_key",
    "verdict",
    "verify_lines",
]


def __getattr__(name: str) -> Any:
    """Each part is imported when it is asked for: most sessions are never examined."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
