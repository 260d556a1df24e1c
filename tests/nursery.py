"""Processes of Python programs that need not import everything again: forks of one that has.

To start Python and import an agent takes most of a second of a processor; a fork takes a few
thousandths. Each process of a test run keeps one *nursery*: a process without threads that has
imported what programs use, and forks when it is asked to. Its children are processes as all
others are: they can be killed and stopped, have pipes of their own, and end with the test run.
Another one, for programs of readers, has imported what others wrote, and nothing of Tertulia.

python nursery.py NUMBER_OF_A_SOCKET MODULE...
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import IO, Any, cast

ROOT = Path(__file__).parent.parent
IMPORTED = (
    "pydantic_ai",
    "tertulia.agents.condenser",
    "tertulia.agents.loop",
    "tertulia.agents.offline",
    "tertulia.agents.router",
    "tertulia.agents.tools",
    "tertulia.bus",
    "tertulia.cli.main",
    "tertulia.memory",
    "tertulia.runtime",
    "tertulia.server",
    "tertulia.stores",
    "tertulia.stores.postgres.driver",
    "tertulia.swarm.services",
    "tertulia.testing",
    "tests.crash.crew",
    "tests.crash.guild",
    "uvicorn.protocols.http.httptools_impl",
    "uvicorn.loops.uvloop",
    "asyncpg",
)
THIRD_PARTY = (
    "anthropic",
    "apsw",
    "asyncpg",
    "nats",
    "openai",
    "pydantic_ai.models.anthropic",
    "pydantic_ai.models.openai",
    "starlette.routing",
    "starlette.websockets",
    "uvicorn.loops.uvloop",
    "uvicorn.protocols.http.httptools_impl",
)
LENGTH = struct.Struct("!I")


class Fork:
    """A program that runs in a fork of the nursery: ``Fork(["file.py", "word"])``,
    ``Fork(["-m", "module"])`` or ``Fork(["-c", "code"])``, after ``-W`` and a filter if there are
    to be such. What it takes and offers is as with `subprocess.Popen`. A program of a `reader`
    finds nothing of Tertulia imported.
    """

    def __init__(
        self,
        words: list[str],
        *,
        stdout: int | IO[bytes] | None = None,
        stderr: int | IO[bytes] | None = None,
        cwd: str | Path | None = None,
        env: Mapping[str, str] | None = None,
        reader: bool = False,
    ) -> None:
        self.returncode: int | None = None
        self._stopped = False
        heard, told = os.pipe()
        taken, given = os.pipe()
        self.stdin: IO[str] = os.fdopen(given, "w", encoding="utf-8", errors="surrogateescape")
        self.stdout: IO[str] | None = None
        out = stdout
        if stdout is None:
            said, out = os.pipe()
            self.stdout = os.fdopen(said, "r")
        self._told = os.fdopen(heard, "rb", buffering=0)
        request = {
            "words": words,
            "cwd": str(cwd or Path.cwd()),
            "env": dict(os.environ if env is None else env),
        }
        fds = [taken, _number(out), _number(2 if stderr is None else stderr), told]
        _nursery(THIRD_PARTY if reader else IMPORTED).ask(request, fds)
        for number in (taken, told, *([fds[1]] if stdout is None else [])):
            os.close(number)
        self.pid = self._next()

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """``kill -9``."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def wait_stopped(self) -> None:
        """Wait until it stands still."""
        while not self._stopped:
            self._look(None)

    def poll(self) -> int | None:
        """Its status, if it has ended."""
        while self.returncode is None and self._look(0):
            pass
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Its status, once it has ended. Raises subprocess.TimeoutExpired."""
        until = None if timeout is None else time.monotonic() + timeout
        while self.returncode is None:
            left = None if until is None else max(until - time.monotonic(), 0)
            if not self._look(left):
                raise subprocess.TimeoutExpired("a fork of the nursery", timeout or 0)
        return self.returncode

    def communicate(self, timeout: float) -> tuple[str, None]:
        """What it still says until it ends by itself. Raises subprocess.TimeoutExpired."""
        self.stdin.close()
        timer = threading.Timer(timeout, self.kill)
        timer.start()
        try:
            said = "" if self.stdout is None else self.stdout.read()
            self.wait(timeout)
        finally:
            timer.cancel()
        return said, None

    def close(self) -> None:
        """Kill it and let go of its pipes."""
        self.kill()
        self.wait()
        for pipe in (self.stdin, self.stdout, self._told):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def _look(self, timeout: float | None) -> bool:
        """Hear one thing of what becomes of it; False where nothing did in time."""
        if not select.select([self._told], [], [], timeout)[0]:
            return False
        status = self._next()
        if os.WIFSTOPPED(status):
            self._stopped = True
        elif os.WIFCONTINUED(status):
            self._stopped = False
        else:
            self.returncode = os.waitstatus_to_exitcode(status)
        return True

    def _next(self) -> int:
        data = self._told.read(LENGTH.size)
        if len(data or b"") != LENGTH.size:
            raise EOFError("the nursery ended")
        return int(LENGTH.unpack(data)[0])


def finished(
    words: list[str],
    stdin: str,
    *,
    cwd: Path,
    env: Mapping[str, str],
    timeout: float,
    reader: bool = False,
) -> subprocess.CompletedProcess[str]:
    """A program that ran to its end, and what it said. Raises subprocess.TimeoutExpired."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        fork = Fork(words, stdout=out, stderr=err, cwd=cwd, env=env, reader=reader)
        try:
            with contextlib.suppress(BrokenPipeError), fork.stdin as pipe:
                pipe.write(stdin)
            status = fork.wait(timeout)
        finally:
            fork.close()
        said = [_text(file) for file in (out, err)]
    return subprocess.CompletedProcess(words, status, *said)


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="surrogateescape").replace("\r\n", "\n")


class Nursery:
    """The process that forks, as those see it who ask it."""

    def __init__(self, imported: Sequence[str]) -> None:
        mine, its = socket.socketpair()
        env = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), *sys.path))}
        with its:
            command = [sys.executable, __file__, str(its.fileno()), *imported]
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=2, env=env, pass_fds=[its.fileno()]
            )
        self._socket = mine
        self._lock = threading.Lock()

    def ask(self, request: dict[str, Any], fds: list[int]) -> None:
        """Have a program run."""
        content = json.dumps(request).encode(errors="surrogateescape")
        with self._lock:
            socket.send_fds(self._socket, [LENGTH.pack(len(content))], fds)
            self._socket.sendall(content)

    def close(self) -> None:
        """End it, with all of its children."""
        self._socket.close()
        self._process.wait()


_started: dict[Sequence[str], Nursery] = {}
_starting = threading.Lock()


def _nursery(imported: Sequence[str]) -> Nursery:
    with _starting:
        if imported not in _started:
            _started[imported] = Nursery(imported)
            atexit.register(_started[imported].close)
        return _started[imported]


def _number(file: int | IO[bytes] | None) -> int:
    return file if isinstance(file, int) else file.fileno() if file is not None else 2


# -- the nursery itself


def main(control: socket.socket, imported: Sequence[str]) -> list[str]:
    """Fork whenever it is asked for; returns, in a child only, with the words of its program."""
    atexit.register(leave)  # before any other, so that it runs last
    for name in imported:
        import_module(name)
    gc.collect()
    gc.freeze()  # a child that ends does not look through all that it has from here
    awake, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, heard)
    told: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([control, awake], [], [])
        if awake in ready:
            os.read(awake, 4096)
            report(told)
        if control in ready:
            head, fds, _, _ = socket.recv_fds(control, LENGTH.size, 4)
            if not head:
                for child in told:
                    os.kill(child, signal.SIGKILL)
                sys.exit(0)
            request = json.loads(read(control, LENGTH.unpack(head)[0]))
            child = os.fork()
            if child == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for number in (control.fileno(), awake, wake, fds[3], *told.values()):
                    os.close(number)
                control.detach()
                return become(request, fds[:3])
            for number in fds[:3]:
                os.close(number)
            told[child] = fds[3]
            os.write(fds[3], LENGTH.pack(child))


def heard(*_: object) -> None:
    """That a child did something is told by the pipe that awakes."""


def report(told: dict[int, int]) -> None:
    """Tell of children what became of them."""
    for child in list(told):
        number, status = os.waitpid(child, os.WNOHANG | os.WUNTRACED | os.WCONTINUED)
        if number:
            with contextlib.suppress(BrokenPipeError):
                os.write(told[child], LENGTH.pack(status))
            if os.WIFEXITED(status) or os.WIFSIGNALED(status):
                os.close(told.pop(child))


def read(control: socket.socket, size: int) -> bytes:
    """So many bytes."""
    data = b""
    while len(data) < size:
        data += control.recv(size - len(data))
    return data


def become(request: dict[str, Any], fds: list[int]) -> list[str]:
    """Take the place, the environment and the pipes that were given."""
    for number, fd in enumerate(fds):
        os.dup2(fd, number)
        os.close(fd)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    return request["words"]


ended: list[int] = []
"""In a child: the status of its program, when that has ended in an orderly way."""


def leave() -> None:
    """End the process, unless an error ended its program.

    Threads and functions that wait for the end were given it before, as by Python. What is left
    out is to take apart all that was imported, which copies it first: most of what a fork costs.
    """
    if not ended:
        return
    sys.modules.pop("__main__")
    gc.collect()  # what the program left is told of its end
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            return
    os._exit(ended[0])


def run(words: list[str]) -> None:
    """Run a program as Python does."""
    try:
        start(words)
    except SystemExit as error:
        if isinstance(error.code, int | None):
            ended.append((error.code or 0) & 0xFF)
        raise
    ended.append(0)


def start(words: list[str]) -> None:
    """Run the code of a program."""
    if words[0] == "-W":
        warnings.simplefilter(cast("Any", words[1]))
        sys.warnoptions.append(words[1])
        words = words[2:]
    if words[0] == "-c":
        sys.argv = ["-c", *words[2:]]
        sys.path.insert(0, "")
        sys.modules["__main__"] = ModuleType("__main__")
        exec(compile(words[1], "<string>", "exec"), vars(sys.modules["__main__"]))
    elif words[0] == "-m":
        sys.argv = words[1:]
        sys.path.insert(0, str(Path.cwd()))
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        sys.path.insert(0, str(Path(words[0]).parent))
        runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    sys.path.pop(0)
    run(main(socket.socket(fileno=int(sys.argv[1])), sys.argv[2:]))
