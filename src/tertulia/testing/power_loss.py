"""A disk that loses what was not synced when its power fails, for tests of what a store keeps.

`RecordingVFS` lets a real database be written and keeps a list of what was done to its files.
A `Disk` is told that list, up to some point, and says what may be found after the power failed
there: all that was synced, and any part of the rest.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import apsw

SECTOR = 512
"""What a disk writes whole or not at all."""
JOURNALS = apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_MAIN_JOURNAL
"""The files with whose first sync SQLite syncs their folder too."""


class Write(NamedTuple):
    """Bytes that were written."""

    file: str
    offset: int
    data: bytes


class Truncate(NamedTuple):
    """A file that was cut to a size."""

    file: str
    size: int


class Sync(NamedTuple):
    """A file that was brought to the disk; with `folder` also what was deleted beside it."""

    file: str
    folder: bool = False


class Delete(NamedTuple):
    """A file that was deleted; for good at once when `durable`."""

    file: str
    durable: bool


class FailedSync(NamedTuple):
    """A sync that failed: what it was for may be lost, although a later sync succeeds."""

    file: str


class Said(NamedTuple):
    """What a program was told by then; nothing that happens to the disk."""

    fact: Any


Step = Write | Truncate | Sync | FailedSync | Delete | Said


class RecordingVFS(apsw.VFS):
    """Registers itself under `name`, and writes down in `steps` what is done to files.

    Without `syncs` it says that it has synced and does not: a disk that lies.
    """

    def __init__(self, name: str, *, syncs: bool = True) -> None:
        self.name = name
        self.syncs = syncs
        self.failing_syncs = 0
        """How many syncs of journals are still to fail."""
        self.steps: list[Step] = []
        super().__init__(name, "")

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        return _RecordedFile(self, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802
        super().xDelete(filename, syncdir)
        self.steps.append(Delete(Path(filename).name, syncdir))


class _RecordedFile(apsw.VFSFile):
    def __init__(self, vfs: RecordingVFS, name: Any, flags: list[int]) -> None:
        self._vfs = vfs
        path = name.filename() if hasattr(name, "filename") else name
        self._file = Path(str(path)).name if path else ""
        self._new = bool(flags[0] & JOURNALS and flags[0] & apsw.SQLITE_OPEN_CREATE)
        super().__init__("", name, flags)

    def xWrite(self, data: Any, offset: int) -> None:  # noqa: N802
        cast("Any", super()).xWrite(data, offset)
        self._note(Write(self._file, offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        super().xTruncate(newsize)
        self._note(Truncate(self._file, newsize))

    def xSync(self, flags: int) -> None:  # noqa: N802
        if self._vfs.failing_syncs and self._file.endswith("-wal"):
            self._vfs.failing_syncs -= 1
            self._note(FailedSync(self._file))
            raise apsw.IOError(f"the sync of {self._file} failed, as it was told to")
        if self._vfs.syncs:
            super().xSync(flags)
            self._note(Sync(self._file, self._new))
            self._new = False

    def _note(self, step: Step) -> None:
        if self._file:
            self._vfs.steps.append(step)


Change = Write | Truncate | Delete


class _Pending(NamedTuple):
    """A change on its way; a sync does not help one that is `doubtful` for ever."""

    change: Change
    doubtful: bool = False
    sure: bool = False


class Disk:
    """What is on a disk for good, and what is on its way there; the files of one folder."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._kept = {name: bytearray(content) for name, content in files.items()}
        self._pending: dict[str, list[_Pending]] = {}

    def do(self, steps: Iterable[Step]) -> None:
        """Go on to a later moment."""
        for step in steps:
            if isinstance(step, Sync):
                self._settle(step.file)
                for file in list(self._pending) if step.folder else ():
                    self._settle_deletion(file)
            elif isinstance(step, FailedSync):
                waiting = self._pending.get(step.file, [])
                waiting[:] = [_Pending(each.change, not each.sure, each.sure) for each in waiting]
            elif not isinstance(step, Said):
                self._pending.setdefault(step.file, []).append(_Pending(step))
                if isinstance(step, Delete) and step.durable:
                    self._settle(step.file)

    def _settle(self, file: str) -> None:
        """Nothing before the first doubtful change can be lost from here on, nor what is sure."""
        waiting = self._pending.pop(file, [])
        while waiting and not waiting[0].doubtful:
            _apply(self._kept, waiting.pop(0).change)
        if waiting:
            self._pending[file] = [each._replace(sure=not each.doubtful) for each in waiting]

    def _settle_deletion(self, file: str) -> None:
        changes = self._pending[file]
        deleted = [n for n, each in enumerate(changes, 1) if isinstance(each.change, Delete)]
        if deleted:
            self._kept.pop(file, None)
            self._pending[file] = changes[deleted[-1] :]

    @property
    def unsynced(self) -> int:
        """How many changes would be at the mercy of a power failure now."""
        return sum(len(changes) for changes in self._pending.values())

    def after_power_loss(self, luck: random.Random) -> dict[str, bytes]:
        """What may be found if the power failed now: every file with its bytes.

        Of the changes that were not synced each may be there or not, and a write in part.
        """
        keeping = luck.choice((0.0, 0.1, 0.5, 0.9, 1.0))
        tearing = luck.choice((0.0, 0.3, 1.0))
        found = {name: bytearray(content) for name, content in self._kept.items()}
        for waiting in self._pending.values():
            for part, sure in _parts(waiting, luck, tearing):
                if sure or luck.random() < keeping:
                    _apply(found, part)
                elif isinstance(part, Delete):
                    break  # the old file is still there, and what came later was another one
        return {name: bytes(content) for name, content in found.items()}


def _apply(files: dict[str, bytearray], change: Change) -> None:
    if isinstance(change, Delete):
        files.pop(change.file, None)
        return
    content = files.setdefault(change.file, bytearray())
    start = change.size if isinstance(change, Truncate) else change.offset
    content.extend(bytes(max(0, start - len(content))))
    if isinstance(change, Truncate):
        del content[start:]
    else:
        content[start : start + len(change.data)] = change.data


def _parts(
    waiting: Iterable[_Pending], luck: random.Random, tearing: float
) -> Iterator[tuple[Change, bool]]:
    for each in waiting:
        if isinstance(each.change, Write) and luck.random() < tearing:
            for sector in _sectors(each.change):
                yield sector, each.sure
        else:
            yield each.change, each.sure


def _sectors(write: Write) -> Iterator[Write]:
    at, end = write.offset, write.offset + len(write.data)
    while at < end:
        following = min(end, (at // SECTOR + 1) * SECTOR)
        yield Write(write.file, at, write.data[at - write.offset : following - write.offset])
        at = following
