"""The audit: what can be proved about a log, by whoever has the store, a file or a signed head."""

from tertulia.audit.anchor import Head, check_anchor, generate_key, make_anchor, public_key
from tertulia.audit.chain import ChainChecker, Verification
from tertulia.audit.export import Exporter, Source, export_lines
from tertulia.audit.files import verify_lines
from tertulia.audit.refold import Refold, RowFacts, verdict
from tertulia.audit.transcript import export_json, export_markdown

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
