"""What every server of the live benchmarks shares: how it runs, and what its process tells."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"
UVICORN: dict[str, Any] = {
    "host": HOST,
    "loop": "uvloop",
    "http": "httptools",
    "ws": "websockets-sansio",
    "log_level": "warning",
}
"""How every server here runs."""
PAUSE, WORD = 0.02, "word "
"""Between the words of an answer: 50 words a second, as a quick model has them."""

_loops: list[asyncio.AbstractEventLoop] = []


def here() -> None:
    """Say, on the loop of the server, which one that is."""
    if not _loops:
        _loops.append(asyncio.get_running_loop())


def loop_of_the_server() -> asyncio.AbstractEventLoop:
    """The one that said `here`; IndexError before."""
    return _loops[0]


async def holdings(session_class: str) -> dict[str, int]:
    """What this process has now, garbage taken away."""
    gc.collect()
    return {
        "tasks": len(asyncio.all_tasks()),
        "descriptors": sum(1 for _ in Path("/proc/self/fd").iterdir()),
        "threads": threading.active_count(),
        "sessions": sum(type(each).__name__ == session_class for each in gc.get_objects()),
        "resident": resident(os.getpid()),
        "page_cache": page_cache(),
    }


def page_cache() -> int:
    """The bytes of SQLite, which fills a cache of a fixed size with what it has read or written."""
    apsw = sys.modules.get("apsw")
    return 0 if apsw is None else int(apsw.memory_used())


def resident(process: int) -> int:
    """The memory of this process that is in RAM, in bytes."""
    pages = Path(f"/proc/{process}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
