"""Clean up after whoever made a folder of servers, also when it was killed.

    python guard.py FOLDER

It ends what FOLDER/pids names and removes the folder, as soon as its standard input is closed.
Uses the standard library only, and imports nothing of Tertulia: it lives beside every server.
"""

import contextlib
import os
import shutil
import signal
import sys
import time
from pathlib import Path

PATIENCE = 5.0


def main(folder: Path) -> None:
    """Wait for the end of standard input, then end the servers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.stdin.buffer.read()
    numbers = [int(path.name) for path in (folder / "pids").glob("*")]
    for ending in (signal.SIGQUIT, signal.SIGKILL):
        _end(numbers, ending)
    shutil.rmtree(folder, ignore_errors=True)


def _end(numbers: list[int], ending: signal.Signals) -> None:
    for number in numbers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, ending)
    until = time.monotonic() + PATIENCE
    while any(map(_lives, numbers)) and time.monotonic() < until:
        time.sleep(0.02)


def _lives(number: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(number, 0)
        return True
    return False


if __name__ == "__main__":
    main(Path(sys.argv[1]))
