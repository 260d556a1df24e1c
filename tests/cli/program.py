"""The real program, in a process of its own, and stores for it to work on."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.nursery import finished

from tertulia import Runtime

PROGRAM = (sys.executable, "-m", "tertulia")
HIDDEN = ("TERTULIA_", "OPENAI_", "ANTHROPIC_")


def environment(home: Path, **more: str) -> dict[str, str]:
    """An environment in which nothing is configured and no data folder is anybody's."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(HIDDEN)}
    return {**kept, "XDG_DATA_HOME": str(home / "data"), "TERTULIA_OFFLINE_PAUSE": "0", **more}


class Program:
    """Calls the program on one store."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "store.db"
        self.url = f"sqlite:///{self.file}"

    def __call__(
        self, *words: str, stdin: str = "", store: str | None = "", **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; `store` None leaves the option out."""
        return finished(
            ["-m", "tertulia", *words, *self._option(store)],
            stdin,
            cwd=self.folder,
            env=environment(self.folder, **env),
            timeout=30,
        )

    def ok(self, *words: str, **options: Any) -> str:
        """What a command prints that must succeed."""
        done = self(*words, **options)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout

    def json(self, *words: str, **options: Any) -> Any:
        """What a command prints with --json, parsed."""
        return json.loads(self.ok(*words, "--json", **options))

    def refused(self, *words: str, **options: Any) -> str:
        """The one line that a command says that must be refused."""
        done = self(*words, **options)
        assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
        lines = [line for line in done.stderr.splitlines() if not line.startswith("store:")]
        assert len(lines) == 1, done.stderr
        assert lines[0].startswith("error: "), lines
        return lines[0]

    @contextmanager
    def started(
        self, *words: str, command: tuple[str, ...] = PROGRAM, store: str | None = ""
    ) -> Generator[subprocess.Popen[str]]:
        """A command that goes on; it is killed at the end of the block."""
        process = subprocess.Popen(
            [*command, *words, *self._option(store)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            cwd=self.folder,
            env=environment(self.folder),
        )
        try:
            with process:
                try:
                    yield process
                finally:
                    process.kill()
        finally:
            process.wait()

    def _option(self, store: str | None) -> tuple[str, ...]:
        return () if store is None else ("--store", store or self.url)


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """What a process prints, up to and with some text."""
    assert process.stdout is not None
    seen = io.StringIO()
    end = ""
    while not end.endswith(text):
        piece = process.stdout.read(1)
        assert piece, f"{text!r} did not come: {seen.getvalue()}"
        seen.write(piece)
        end = (end + piece)[-len(text) :]
    return seen.getvalue()


def interrupt(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Press Ctrl-C; the exit status and what stood on standard error."""
    process.send_signal(signal.SIGINT)
    _, complaints = process.communicate(timeout=30)
    return process.returncode, complaints


def fill(url: str) -> None:
    """Three sessions: two of them of a user, one of them in an app, with tools and state."""
    asyncio.run(_fill(url))


async def _fill(url: str) -> None:
    async with Runtime(url) as runtime:
        for number, (app, user) in enumerate([(None, None), (None, "ana"), ("shop", "ana")]):
            session = runtime.session(f"s{number}", app_name=app, user_id=user)
            for turn in range(3):
                await _turn(session, f"question {turn}", f"c{turn}")
            await session.set_state("color", "blue")


async def _turn(session: Any, text: str, call: str) -> None:
    asked = {"id": call, "name": "add", "arguments": {"a": 40, "b": 2}}
    async with session.turn(text) as turn:
        await turn.add_message({"role": "assistant", "content": "", "tool_calls": [asked]})
        await turn.tool_called(call, "add", effect="none")
        await turn.tool_returned(call, {"role": "tool", "content": "42", "tool_call_id": call})
        await turn.add_message({"role": "assistant", "content": f"it is 42 \x1b[31m ü, {text}"})
