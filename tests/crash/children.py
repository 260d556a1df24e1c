"""Processes of their own that a test starts, steps by lines, stops and kills."""

from __future__ import annotations

import signal
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tests.nursery import Fork

PROGRAMS = Path(__file__).parent / "programs"


class Child:
    """A program of the folder `programs` in a process of its own."""

    def __init__(self, program: str, *arguments: object) -> None:
        self._process = Fork([str(PROGRAMS / f"{program}.py"), *map(str, arguments)])

    @property
    def pid(self) -> int:
        return self._process.pid

    def hear(self) -> str:
        """The next line that it says. Raises EOFError where it ended instead."""
        line = self._pipe(self._process.stdout).readline()
        if not line.endswith("\n"):
            raise EOFError(f"the child ended, saying {line!r}")
        return line.rstrip("\n")

    def tell(self, line: str = "go on") -> None:
        """Say a line to it."""
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def stop(self) -> None:
        """SIGSTOP; it stands still when this returns."""
        self._process.send_signal(signal.SIGSTOP)
        self._process.wait_stopped()

    def go_on(self) -> None:
        """SIGCONT."""
        self._process.send_signal(signal.SIGCONT)

    def kill_only(self) -> None:
        """``kill -9`` of one whose children may still have its pipes."""
        self._process.kill()
        self._process.wait()

    def kill(self) -> list[str]:
        """``kill -9``; what it said before, whole lines only, and nobody had read."""
        self.kill_only()
        rest = self._pipe(self._process.stdout).read()
        return rest.split("\n")[:-1]

    def end(self) -> list[str]:
        """Wait until it ends by itself; what it still said. Raises where it failed."""
        said, _ = self._process.communicate(timeout=50)
        if self._process.returncode:
            raise AssertionError(f"the child ended with status {self._process.returncode}")
        return said.splitlines()

    def clean_up(self) -> None:
        """Leave no process and no pipe behind."""
        self._process.close()

    def _pipe(self, pipe: IO[str] | None) -> IO[str]:
        if pipe is None:
            raise AssertionError("a child has pipes")
        return pipe


@contextmanager
def children(program: str, *arguments: object, count: int = 1) -> Generator[list[Child]]:
    """So many processes of a program, which end with the block."""
    started = [Child(program, *arguments) for _ in range(count)]
    try:
        yield started
    finally:
        for child in started:
            child.clean_up()


@contextmanager
def child_of(program: str, *arguments: object) -> Generator[Child]:
    """One process of a program, which ends with the block."""
    with children(program, *arguments) as (child,):
        yield child
