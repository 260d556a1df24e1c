"""Locks between processes, on files in a folder beside the database; all go with their process."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from tertulia.errors import StoreUnavailable

PATIENCE = 30.0
RETRY_AFTER = 0.000_2
HOLD_SECONDS = 0.005
"""How long one process may go on writing while another one wants to."""
CLOCK_TICK_NS = 50_000_000
"""Two changes of a folder within a tick of the file system's clock may carry the same time."""


def open_lock(path: Path) -> int:
    return os.open(path, os.O_CREAT | os.O_RDWR, 0o600)


def _try(file: int, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class Company:
    """Whether other workers have this file open, told by the folder's time of change."""

    def __init__(self, folder: Path, worker: bytes) -> None:
        self._folder = folder
        self._own = worker.hex()
        self._changed = 0
        self._others = True

    def present(self) -> bool:
        """False when nobody else is there; a file that is new may still be missed for a moment."""
        changed = self._folder.stat().st_mtime_ns
        if changed != self._changed:
            names = {path.name for path in self._folder.glob("[0-9a-f]" * 32)}
            self._others = bool(names - {self._own})
            settled = time.time_ns() - changed > CLOCK_TICK_NS
            self._changed = changed if settled else 0
        return self._others


class WriteTurn:
    """Whose turn it is to write: a turnstile, so that of two busy processes none starves.

    Whoever wants to write first takes `next`, then waits for `writing`, and then gives `next`
    back. It keeps `writing` while more waits to be written, but not longer than HOLD_SECONDS, and
    never while it waits itself: a process that is stopped then keeps nobody else from writing. Who
    is alone takes no lock; SQLite's own keeps apart those that do not know of each other yet.
    """

    def __init__(self, folder: Path, worker: bytes) -> None:
        self._next = open_lock(folder / "next")
        self._writing = open_lock(folder / "writing")
        self._company = Company(folder, worker)
        self._since = 0.0

    def take(self) -> None:
        """Raises StoreUnavailable when another process does not let go of its turn."""
        if self._since:
            if time.monotonic() - self._since < HOLD_SECONDS:
                return
            self.release()
        if not self._company.present():
            return
        until = time.monotonic() + PATIENCE
        self._wait(self._next, until)
        try:
            self._wait(self._writing, until)
        finally:
            fcntl.flock(self._next, fcntl.LOCK_UN)
        self._since = time.monotonic()

    def release(self) -> None:
        if self._since:
            self._since = 0.0
            fcntl.flock(self._writing, fcntl.LOCK_UN)

    def close(self) -> None:
        """Also right in a forked child: the locks of the parent stay."""
        self._since = 0.0
        os.close(self._next)
        os.close(self._writing)

    def _wait(self, file: int, until: float) -> None:
        while not _try(file, fcntl.LOCK_EX):
            if time.monotonic() > until:
                raise StoreUnavailable(
                    "another process has been writing for 30 s; it may be stopped: "
                    "`tertulia doctor` names it"
                )
            time.sleep(RETRY_AFTER)


class WorkerLock:
    """A file that is locked for as long as its process lives."""

    def __init__(self, folder: Path, worker: bytes) -> None:
        self._path = folder / worker.hex()
        self._file = self._lock()

    def _lock(self) -> int:
        """Take the lock; again, if someone took the new file for one that was left behind."""
        while True:
            file = open_lock(self._path)
            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                if self._path.stat().st_ino == os.fstat(file).st_ino:
                    os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
                    return file
            except FileNotFoundError:
                pass
            os.close(file)

    def release(self) -> None:
        self._path.unlink(missing_ok=True)
        os.close(self._file)

    def abandon(self) -> None:
        """Let go of it in a forked child, whose parent keeps it."""
        os.close(self._file)


def is_alive(folder: Path, worker: bytes) -> bool:
    """Whether the process of a worker lives; the file of a dead one is removed."""
    path = folder / worker.hex()
    try:
        file = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        if not _try(file, fcntl.LOCK_SH):
            return True
        if path.stat().st_ino == os.fstat(file).st_ino:
            path.unlink(missing_ok=True)
    except FileNotFoundError:
        return False
    finally:
        os.close(file)
    return False


def workers(folder: Path) -> list[bytes]:
    """The workers that have a file, dead ones too."""
    return [bytes.fromhex(path.name) for path in folder.glob("[0-9a-f]" * 32)]


def sweep(folder: Path) -> None:
    """Remove the files of workers that died without anybody asking after them."""
    for worker in workers(folder):
        is_alive(folder, worker)


def process_of(folder: Path, worker: bytes) -> int:
    """The process id that a worker wrote down, 0 when it did not get that far."""
    try:
        return int((folder / worker.hex()).read_text() or 0)
    except (FileNotFoundError, ValueError):
        return 0
