"""Make a virtual environment from hash-pinned requirements, and keep it up to date.

    python scripts/setup_venv.py [--package] FOLDER NAME...

Each NAME is a file `requirements/NAME.txt`. With `--package` this project is installed too,
editable and without dependencies, by the build backend that the requirements brought: nothing
that is not pinned is ever fetched. A step is done again only when what it was made from has
changed, and two calls at once wait for each other. Needs only the standard library.
"""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PIP = ("-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--quiet", "--no-deps")
PINNED = ("--require-hashes", "--only-binary", ":all:", "--no-compile")
EDITABLE = ("--no-build-isolation", "--no-index", "--editable")


def main(arguments: list[str]) -> int:
    """Do what is missing, one line a step on standard error."""
    if sys.version_info < (3, 11):  # noqa: UP036 - this file meets the Python of the machine
        return complain("Tertulia needs Python 3.11 or newer: make PYTHON=/path/to/python3.11")
    with_package = "--package" in arguments
    folder, *names = [argument for argument in arguments if argument != "--package"]
    venv = Path(os.path.abspath(ROOT / folder))  # noqa: PTH100 - a link in the path stays a link
    try:
        with locked(venv):
            set_up(venv, names, with_package=with_package)
    except subprocess.CalledProcessError as failure:
        return complain(f"{failure.output}\nThe set-up of {folder} failed; nothing else was done.")
    except KeyboardInterrupt:
        return complain(f"\nThe set-up of {folder} was stopped; call it again to go on.")
    return 0


def set_up(venv: Path, names: list[str], *, with_package: bool) -> None:
    """Make the folder, the requirements and the package, each if it is not there as it should."""
    if not usable(venv):
        step(f"making {venv.name} with Python {sys.version.split()[0]}", lambda: create(venv))
    stale = [name for name in names if not stamp(venv, name).matches(requirements(name))]
    if stale:
        files = [f"requirements/{name}.txt" for name in stale]
        step(f"installing {' and '.join(files)}", lambda: install(venv, files))
        for name in stale:
            stamp(venv, name).write(requirements(name))
    if with_package and not stamp(venv, "package").matches(package()):
        step("installing tertulia", lambda: pip(venv, *EDITABLE, str(ROOT)))
        stamp(venv, "package").write(package())
    if with_package:
        compile_folder(venv, ROOT / "src")


def create(venv: Path) -> None:
    """Start from nothing: a half-made or moved environment is not repaired."""
    python = str(Path(sys.executable).resolve())  # not the one inside the folder that goes away
    if venv.exists():
        shutil.rmtree(venv)
    run(python, "-m", "venv", str(venv))
    stamp(venv, "venv").write(str(venv).encode())


def usable(venv: Path) -> bool:
    """Whether it was finished, is where it was made, and has the Python that was asked for."""
    if not stamp(venv, "venv").matches(str(venv).encode()):
        return False
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return (venv / "bin" / "python").exists() and (venv / "bin" / version).exists()


def install(venv: Path, files: list[str]) -> None:
    """Install first, then compile with all cores: that is twice as fast as pip's own way."""
    pip(venv, *PINNED, *(part for file in files for part in ("-r", file)))
    compile_folder(venv, venv / "lib")


def compile_folder(venv: Path, folder: Path) -> None:
    """Compile what was changed, also where Python is told to write no bytecode of its own."""
    command = [str(venv / "bin" / "python"), "-m", "compileall", "-qq", "-j", "0", str(folder)]
    subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)


def pip(venv: Path, *arguments: str) -> None:
    """Call the environment's own pip."""
    run(str(venv / "bin" / "python"), *PIP, *arguments)


def run(*command: str) -> None:
    """Run quietly, away from the caller's standard input; the output is shown if it fails."""
    subprocess.run(
        command,
        cwd=ROOT,
        check=True,
        env={**os.environ, "PIP_ROOT_USER_ACTION": "ignore"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


class stamp:  # noqa: N801 - reads as a function
    """The digest of what a step was made from, kept inside the environment."""

    def __init__(self, venv: Path, name: str) -> None:
        self.path = venv / f".made-{name}"

    def matches(self, source: bytes) -> bool:
        """Whether the step was made from exactly this."""
        return self.path.is_file() and self.path.read_text() == hashlib.sha256(source).hexdigest()

    def write(self, source: bytes) -> None:
        """Remember that the step was made from this."""
        self.path.write_text(hashlib.sha256(source).hexdigest())


def requirements(name: str) -> bytes:
    """What a requirements step is made from."""
    return (ROOT / "requirements" / f"{name}.txt").read_bytes()


def package() -> bytes:
    """What the editable install is made from: not the settings of the linters."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    relevant = {
        "project": settings["project"],
        "build-system": settings["build-system"],
        "hatch": settings["tool"]["hatch"],
    }
    return json.dumps(relevant, sort_keys=True).encode()


@contextmanager
def locked(venv: Path) -> Generator[None]:
    """Let one call at a time work on an environment; the lock goes with its process."""
    with venv.with_name(f"{venv.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def step(what: str, do: Callable[[], None]) -> None:
    """Say what is done, and how long it took."""
    started = time.monotonic()
    print(f"{what} ...", end=" ", file=sys.stderr, flush=True)
    do()
    print(f"{time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)


def complain(message: str) -> int:
    """Say what went wrong."""
    print(message, file=sys.stderr)
    return 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
