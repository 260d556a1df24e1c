"""The live protocol: its events, and its frames, bytes in and bytes out. No I/O."""

from __future__ import annotations
