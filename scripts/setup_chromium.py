"""Find the Chromium that the tests of the whole system drive, and install it if there is none.

    python scripts/setup_chromium.py

Prints where it is. `TERTULIA_CHROMIUM` names one to use; else the first on the path is taken, and
else one is installed from the packages of the system (apt-get, as root or with a sudo that does
not ask). No browser is downloaded from anywhere else. Needs only the standard library.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = (
    "chromium-headless-shell",
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)
PACKAGES = ("chromium-headless-shell", "chromium")  # the first is the smaller one, where it exists
MISSING = (
    "No Chromium was found, and none could be installed{why}.\n"
    "Install one (on Debian: apt-get install chromium) or name it: TERTULIA_CHROMIUM=/path/to/it"
)


class ChromiumMissing(Exception):
    """There is none; the message says what to do."""


def main() -> int:
    """Print the path of a Chromium; fail with a message if there is none and none installs."""
    try:
        print(find() or install())
    except ChromiumMissing as missing:
        print(missing, file=sys.stderr)
        return 1
    return 0


def find() -> str | None:
    """The path of the one that is there, or None; raises if a named one is not there."""
    named = os.environ.get("TERTULIA_CHROMIUM")
    if named:
        if not Path(named).is_file():
            raise ChromiumMissing(f"TERTULIA_CHROMIUM names {named}, and there is no such file.")
        return named
    return next((path for path in map(shutil.which, NAMES) if path), None)


def install() -> str:
    """Install it from the packages of the system, and return its path."""
    if shutil.which("apt-get") is None:
        raise ChromiumMissing(MISSING.format(why=": there is no apt-get"))
    if os.geteuid() != 0 and shutil.which("sudo") is None:
        raise ChromiumMissing(MISSING.format(why=": this is not root, and there is no sudo"))
    print("installing Chromium from the packages of the system ...", file=sys.stderr)
    apt_get("update")
    told = ""
    for package in PACKAGES:
        told = apt_get("install", "--yes", "--no-install-recommends", package)
        found = find()
        if found is not None:
            return found
    raise ChromiumMissing(MISSING.format(why=f"; apt-get said:\n{told.strip()}\n"))


def apt_get(*arguments: str) -> str:
    """Run it quietly, waiting for another one, and return what it said."""
    rights = [] if os.geteuid() == 0 else ["sudo", "--non-interactive"]
    waiting = ("--option", "DPkg::Lock::Timeout=120")
    done = subprocess.run(
        [*rights, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", *waiting, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.stdout


if __name__ == "__main__":
    raise SystemExit(main())
