"""How a block of a page is run: after what its page takes for granted, its imports changed."""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, cast

from tertulia import Agent, Message, Session

BLOCKS = Path(__file__).parent / "blocks"
_IMPORT = re.compile(r"^from (?:agnt5|agent)((?:\.stores|\.errors)?) import ", re.MULTILINE)
_ATOMS = re.compile(r"^from smallestai\.atoms\.(?:agent|crew)(\.\w+) import ", re.MULTILINE)
Names = dict[str, Any]


def block(name: str) -> str:
    """A block as it is printed, but for its import lines; ``[...]`` is some JSON."""
    text = (BLOCKS / f"{name}.txt").read_text()
    text = _ATOMS.sub(r"from tertulia.compat.atoms\1 import ", text)
    return _IMPORT.sub(r"from tertulia\1 import ", text).replace("[...]", '["..."]')


async def run(name: str, *, code: str | None = None, **prelude: Any) -> Names:
    """Run a block in an event loop; gives the names that it leaves.

    `code` is the block where a test has to change more than its imports.
    """
    names = _given(prelude)
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    waiting = eval(compile(code or block(name), name, "exec", flags=flags), names)
    if inspect.iscoroutine(waiting):
        await cast("Awaitable[None]", waiting)
    return names


def run_now(name: str, **prelude: Any) -> Names:
    """Run a block of synchronous code, as in a script."""
    names = _given(prelude)
    exec(compile(block(name), name, "exec"), names)
    return names


def _given(prelude: Names) -> Names:
    """What earlier blocks of the pages imported, and what they made."""
    return {"Agent": Agent, "Session": Session, "Message": Message, "json": json, **prelude}


class Database:
    """What the page calls ``db``."""

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}

    def save_session(self, session_id: str, data: dict[str, Any]) -> None:
        self.kept[session_id] = json.dumps(data)


class Redis:
    """As much of a Redis client as the page uses."""

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}

    def set(self, key: str, value: str) -> None:
        self.kept[key] = value

    def get(self, key: str) -> str | None:
        return self.kept.get(key)

    def delete(self, key: str) -> int:
        return 1 if self.kept.pop(key, None) is not None else 0

    def keys(self, pattern: str) -> list[str]:
        return [key for key in self.kept if key.startswith(pattern.removesuffix("*"))]
