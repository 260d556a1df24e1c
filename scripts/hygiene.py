"""Check that no file of the repository names a machine's own paths or a package host.

    python scripts/hygiene.py

A lock file with a download address, or a page with somebody's home folder in it, is of use on
one machine only. The patterns are put together from parts, so that this file passes its own test.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# what a path must not start with, when it is a path (not the middle of a longer one or a URL)
FOLDERS = ("home", "Users", "root", "opt", "work", "workspace", "private/var")
HOSTS = (
    "gro.ipyp"[::-1],
    "gro.detsohnohtyp"[::-1],
    "gro.sjmpn"[::-1],
    "moc.sjmpn"[::-1],
    "moc.gkpnray"[::-1],
)
OPTIONS = ("index-url", "extra-index-url", "find-links", "trusted-host")

PATTERNS = {
    "a path of a machine": re.compile(rf"(?<![\w.~/}})\]*-])/(?:{'|'.join(FOLDERS)})/[\w.$-]"),
    "a package host": re.compile("|".join(re.escape(host) for host in HOSTS)),
    "a package index option": re.compile(rf"(?m)^\s*-{{2}}(?:{'|'.join(OPTIONS)})[ =]"),
    "a download address": re.compile(r"https?://[^\s\"']+\.(?:whl|tgz)\b"),
}


def main() -> int:
    """Print every fault; fail if there is one."""
    faults = [fault for name in committed() for fault in faults_of(name)]
    for fault in faults:
        print(f"error: {fault}")
    print(f"hygiene: {len(faults)} faults")
    return 1 if faults else 0


def committed() -> list[str]:
    """The files that git keeps, and those it would keep if they were added."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        print("hygiene: this is no git repository, so nothing is checked", file=sys.stderr)
        return []
    return sorted(set(filter(None, listed.stdout.decode().split("\0"))))


def faults_of(name: str) -> Iterator[str]:
    """The lines of one text file that match a pattern."""
    path = ROOT / name
    if path.is_symlink() or not path.is_file():
        return
    data = path.read_bytes()
    if b"\0" in data[:8192]:
        return
    for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
        for what, pattern in PATTERNS.items():
            found = pattern.search(line)
            if found:
                yield f"{name}:{number} names {what}: {found[0]}"


if __name__ == "__main__":
    raise SystemExit(main())
