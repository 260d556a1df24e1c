"""The media: which disk a user would see under the promise "acknowledged means durable".

`ram` shows what the software costs, `disk` what this computer's disk makes of it, and `sync1ms`
a disk whose sync takes 1 ms: a shim that waits in `fsync` and `fdatasync` for every SQLite
alike. The same shim counts the syncs of a process. A medium that cannot be had here is reported
with its reason, never left out.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

NAMES = ("ram", "disk", "sync1ms")
HERE = Path(__file__).parent
RAM = Path("/dev/shm")
MEMORY_FILE_SYSTEMS = {"tmpfs", "ramfs"}
DELAY = "TERTULIA_BENCH_SYNC_NANOSECONDS"

CHECK_SYNC = f"""
import os, tempfile, time
with tempfile.TemporaryFile(dir="{RAM}") as file:
    file.write(b"x"); file.flush()
    started = time.perf_counter()
    for _ in range(10):
        os.fsync(file.fileno()); os.fdatasync(file.fileno())
    raise SystemExit(0 if time.perf_counter() - started >= 0.02 else 1)
"""


class NotMeasured(Exception):
    """This medium cannot be had here; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Medium:
    """Where one measurement keeps its files, and the environment its process needs."""

    name: str
    folder: Path
    sync_costs: bool
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    detail: str = ""


def find(name: str, work: Path) -> Medium:
    """The medium of this name; `work` holds the compiled shim. Raises NotMeasured."""
    if name == "ram":
        return Medium(name=name, folder=_ram(), sync_costs=False, detail="tmpfs")
    if name == "disk":
        return _disk()
    if name == "sync1ms":
        shim = {"LD_PRELOAD": str(_shim(work)), DELAY: "1000000"}
        detail = "tmpfs, 1 ms added to each sync"
        return Medium(name=name, folder=_ram(), sync_costs=True, environment=shim, detail=detail)
    raise ValueError(f"no medium {name!r}; there are {', '.join(NAMES)}")


def counting(medium: Medium, work: Path) -> Medium:
    """The same medium, in whose processes `syncs` counts. Raises NotMeasured."""
    shim = {"LD_PRELOAD": str(_shim(work))}
    return replace(medium, environment={**medium.environment, **shim})


def syncs() -> int:
    """The fsyncs and fdatasyncs of this process so far, in a medium that counts them."""
    counted = ctypes.CDLL(None).tertulia_bench_syncs
    counted.restype = ctypes.c_ulong
    return int(counted())


def file_system(folder: Path) -> str:
    """The type of the file system that holds this folder, or an empty string."""
    try:
        mounts = Path("/proc/mounts").read_text().splitlines()
    except OSError:
        return ""
    best, kind = "", ""
    for line in mounts:
        _, point, type_, *_ = line.split(" ")
        inside = Path(point) == folder or Path(point) in folder.parents
        if inside and len(point) >= len(best):
            best, kind = point, type_
    return kind


def _ram() -> Path:
    if not RAM.is_dir() or not os.access(RAM, os.W_OK):
        raise NotMeasured("no RAM disk: there is no writable /dev/shm")
    return RAM


def _disk() -> Medium:
    chosen = os.environ.get("TERTULIA_BENCH_DISK")
    folder = Path(chosen).resolve() if chosen else HERE / ".work"
    folder.mkdir(parents=True, exist_ok=True)
    kind = file_system(folder)
    if kind in MEMORY_FILE_SYSTEMS:
        raise NotMeasured(f"the folder for the disk is on {kind}; set TERTULIA_BENCH_DISK")
    return Medium(name="disk", folder=folder, sync_costs=True, detail=kind)


def _shim(work: Path) -> Path:
    if not sys.platform.startswith("linux"):
        raise NotMeasured("syncs are slowed and counted with LD_PRELOAD, which only Linux has")
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise NotMeasured("no compiler for the shim of the syncs (cc, gcc or CC)")
    library = work / "sync_shim.so"
    if not library.exists():
        command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(library)]
        built = subprocess.run(
            [*command, str(HERE / "sync_shim.c"), "-ldl"], capture_output=True, text=True
        )
        if built.returncode:
            said = built.stderr.strip()[:200]
            raise NotMeasured(f"the shim of the syncs does not compile: {said}")
        _check(library)
    return library


def _check(library: Path) -> None:
    environment = {**os.environ, "LD_PRELOAD": str(library), DELAY: "1000000"}
    checked = subprocess.run([sys.executable, "-c", CHECK_SYNC], env=environment)
    if checked.returncode:
        library.unlink()
        raise NotMeasured("the shim of the syncs has no effect in a child process")
