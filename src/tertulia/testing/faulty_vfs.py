"""A disk that fails when it is told to, for tests of what a store does then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, cast

import apsw

Operation = Literal["open", "write", "sync", "truncate"]
Fault = Callable[[Operation, str], bool]
"""Given the operation and the file's name, whether it fails."""


class FaultyVFS(apsw.VFS):
    """Registers itself under `name`, and fails what `fault` says with `error`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.fault: Fault | None = None
        self.error: type[apsw.Error] = apsw.IOError
        self.seen: list[tuple[Operation, str]] = []
        super().__init__(name, "")

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        return _FaultyFile(self, name, flags)

    def check(self, operation: Operation, file: str) -> None:
        """Raises the error that was asked for."""
        self.seen.append((operation, file))
        if self.fault is not None and self.fault(operation, file):
            raise self.error(f"{operation} of {file} failed, as it was told to")


class _FaultyFile(apsw.VFSFile):
    def __init__(self, vfs: FaultyVFS, name: Any, flags: list[int]) -> None:
        self._vfs = vfs
        self._name = str(name.filename() if hasattr(name, "filename") else name)
        vfs.check("open", self._name)
        super().__init__("", name, flags)

    def xWrite(self, data: Any, offset: int) -> None:  # noqa: N802
        self._vfs.check("write", self._name)
        cast("Any", super()).xWrite(data, offset)

    def xSync(self, flags: int) -> None:  # noqa: N802
        self._vfs.check("sync", self._name)
        super().xSync(flags)

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        self._vfs.check("truncate", self._name)
        super().xTruncate(newsize)
