"""Where a store lies, and whether its promise can be kept there."""

from __future__ import annotations

import os
from pathlib import Path

from tertulia.errors import StoreUnavailable

NETWORK = frozenset(
    "nfs nfs4 cifs smb3 smbfs afs ceph lustre davfs fuse.sshfs fuse.davfs2 fuse.glusterfs "
    "fuse.rclone fuse.s3fs".split()
)
"""File systems whose locks do not hold between machines, or come and go with the network."""


def lock_folder(path: str) -> Path:
    """The folder beside a database in which its processes hold their locks."""
    folder = Path(f"{path}.workers")
    if not folder.exists() and os.access(folder.parent, os.W_OK):
        folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def may_write(path: str) -> bool:
    file = Path(path)
    return os.access(file.parent, os.W_OK) and (not file.exists() or os.access(path, os.W_OK))


def size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except FileNotFoundError:
        return 0


def file_system(path: str) -> str:
    """The type of the file system that a path lies on, where the system tells."""
    try:
        mounts = Path("/proc/self/mounts").read_text()
    except OSError:
        return "unknown"
    place = os.path.realpath(path)
    best, kind = "", "unknown"
    for line in mounts.splitlines():
        _, folder, found, *_ = line.split(" ")
        folder = folder.replace("\\040", " ")
        inside = folder in {"/", place} or place.startswith(folder + "/")
        if inside and len(folder) >= len(best):
            best, kind = folder, found
    return kind


def refuse_network(path: str) -> None:
    """Raises StoreUnavailable."""
    kind = file_system(path)
    if kind in NETWORK:
        raise StoreUnavailable(
            f"{path} lies on {kind}, where file locks cannot be trusted and sessions would be "
            "lost; use a local disk or PostgreSQL, or add ?unsafe_fs=1 to the URL if only one "
            "process ever uses it"
        )
