"""One server in a process of its own, that tells on its standard output what it holds.

    python -m benchmarks.live_child MODULE:FUNCTION PORT FOLDER

Each line on its standard input is the name of a class; the answer is a line of JSON: how many
tasks, descriptors, threads and objects of that class there are, and how much memory is in use,
and how much of it is SQLite's.
The end of the input ends the process.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from pathlib import Path

from benchmarks.child import allow_many_files
from benchmarks.live_settings import holdings, loop_of_the_server
from benchmarks.systems import load_name


def answer() -> None:
    """Answer the one who started this process, until that one goes away."""
    for line in sys.stdin:
        asked = holdings(line.strip())
        found = asyncio.run_coroutine_threadsafe(asked, loop_of_the_server())
        print(json.dumps(found.result(60)), flush=True)
    os._exit(0)


def main() -> None:
    where, port, folder = sys.argv[1:]
    allow_many_files()
    threading.Thread(target=answer, daemon=True).start()
    load_name(where)(int(port), Path(folder))


if __name__ == "__main__":
    main()
