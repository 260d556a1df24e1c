"""Checking an exported file alone, and against a signed head."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from tertulia import audit
from tertulia.audit import Head, Verification
from tertulia.cli.progress import Bar
from tertulia.errors import InvalidInput


def verify(
    file: Path, anchor: Mapping[str, Any] | None, key: bytes | None, bar: Bar
) -> Verification:
    """Whether the file is whole, unchanged, and in keeping with the anchor if there is one."""
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            found = audit.verify_lines(_counted(lines, bar))
        if found and anchor is not None and key is not None:
            with file.open(encoding="utf-8", newline="") as lines:
                return _anchored(lines, found, audit.check_anchor(anchor, key))
    except UnicodeDecodeError:
        raise InvalidInput(f"{file} is no text, and no file that was exported") from None
    finally:
        bar.close()
    return found


def _counted(lines: Iterator[str], bar: Bar) -> Iterator[str]:
    for line in lines:
        bar.advance()
        yield line


def _anchored(lines: Iterator[str], found: Verification, heads: list[Head]) -> Verification:
    """Compare the digests in a file that holds with those that were signed."""
    signed = {(head.uid.hex(), head.seq): head.digest.hex() for head in heads}
    uid, uids = "", set[str]()
    for line in lines:
        data = json.loads(line)
        uid = data["log"]["uid"] if "log" in data else uid
        uids.add(uid)
        digest = None if data["type"] == "head" else signed.pop((uid, data["seq"]), None)
        if digest not in (None, data["digest"]):
            return _bad(found, data["seq"], "the log is not the one that was anchored")
    missing = sorted(seq for name, seq in signed if name in uids)
    if missing:
        return _bad(found, missing[0], f"the file ends before position {missing[0]}, the anchor's")
    if not any(head.uid.hex() in uids for head in heads):
        raise InvalidInput("the anchor does not name the session of this file")
    return found


def _bad(found: Verification, seq: int, reason: str) -> Verification:
    return msgspec.structs.replace(found, ok=False, first_bad=seq, reason=reason)
