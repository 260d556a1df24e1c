"""Find the `ip` that the tests of a parted network use, and install it if there is none.

    python scripts/setup_iproute.py

Prints where it is. It is installed from the packages of the system (apt-get, as root or with a
sudo that does not ask). Needs only the standard library.
"""

import shutil
import sys
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).parent.parent))

from scripts.setup_chromium import apt_get

MISSING = "No `ip` was found, and none could be installed: install the package iproute2.\n{told}"


def main() -> int:
    """Print the path of it; fail with a message if there is none and none installs."""
    told = ""
    if find() is None and shutil.which("apt-get") is not None:
        told = apt_get("update")
        told += apt_get("install", "--yes", "--no-install-recommends", "iproute2")
    found = find()
    print(found or MISSING.format(told=told), file=sys.stdout if found else sys.stderr)
    return 0 if found else 1


def find() -> str | None:
    """The path of the one that is there, or None."""
    return shutil.which("ip", path="/usr/sbin:/sbin:/usr/bin:/bin")


if __name__ == "__main__":
    raise SystemExit(main())
