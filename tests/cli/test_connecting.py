"""`tertulia connect` against a real server, with lines from a pipe and on a terminal."""

from __future__ import annotations

import os
import pty
import re
import shlex
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from tests.cli.program import PROGRAM, Program, environment, read_until
from tests.cli.test_terminal import Terminal
from tests.client.serving import APP, command, free_port
from tests.nursery import Fork

from tertulia.cli.connect_screen import Screen
from tertulia.client import UnknownEvent
from tertulia.wire.events import LiveEvent

TOKEN = "s3cret-of-ana"
BUSY = APP.with_name("busy_app.py")


@contextmanager
def serving(folder: Path, app: Path = APP, port: int | None = None, **env: str) -> Generator[str]:
    """An application of the client's tests, in a process of its own; gives its URL."""
    port = port or free_port()
    log = (folder / "server.log").open("wb")
    process = Fork(
        command(port, f"sqlite:///{folder / 'live.db'}", app),
        env=environment(folder, **env),
        stdout=log,
        stderr=log,
    )
    try:
        while b"Uvicorn running" not in (folder / "server.log").read_bytes():
            assert process.poll() is None, (folder / "server.log").read_text()
            time.sleep(0.02)
        yield f"ws://127.0.0.1:{port}/ws"
    finally:
        process.close()
        log.close()


@contextmanager
def on_terminal(program: Program, *words: str) -> Generator[Terminal]:
    """The program on a terminal of its own, without a store."""
    screen, keyboard = pty.openpty()
    process = subprocess.Popen(
        [*PROGRAM, *words],
        stdin=keyboard,
        stdout=keyboard,
        stderr=keyboard,
        cwd=program.folder,
        env=environment(program.folder, TERM="dumb"),
    )
    try:
        yield Terminal(process, screen)
    finally:
        process.kill()
        process.wait()
        os.close(keyboard)
        os.close(screen)


@pytest.fixture
def url(tmp_path: Path) -> Generator[str]:
    with serving(tmp_path) as url:
        yield url


def test_piped_lines_are_said_and_answered_one_after_the_other(empty: Program, url: str) -> None:
    printed = empty.ok("connect", url, stdin="a 3\n\n  \nb 2", store=None)
    lines = printed.splitlines()
    assert lines[0] == f"server   {url}"
    assert re.fullmatch(r"session  \S+", lines[1])
    talk = [line for line in lines if line.startswith(("you> ", "agent> "))]
    assert talk == ["you> a 3", "agent> a.0 a.1 a.2 ", "you> b 2", "agent> b.0 b.1 "]


def test_the_last_line_comes_back_to_the_session_after_its_position(
    empty: Program, url: str
) -> None:
    printed = empty.ok("connect", url, stdin="a 1\n", store=None)
    words = shlex.split(printed.splitlines()[-1])
    again = words[words.index("connect") :]
    assert "--after" in again
    more = empty.ok(*again, stdin="b 1\n", store=None)
    assert more.splitlines()[1] == printed.splitlines()[1]
    assert "agent> a.0" not in more
    assert "agent> b.0" in more
    from_the_start = empty.ok(*again[:-2], "--after", "0", stdin="c 1\n", store=None)
    talk = [line for line in from_the_start.splitlines() if line.startswith(("you", "agent"))]
    assert talk.index("you> c 1") < talk.index("agent> c.0 ")
    talk.remove("you> c 1")  # what is typed is shown at once, maybe before what is replayed
    assert talk == ["you> a 1", "agent> a.0 ", "you> b 1", "agent> b.0 ", "agent> c.0 "]


def test_an_answer_that_failed_says_why_below_its_question(empty: Program, tmp_path: Path) -> None:
    with serving(tmp_path, BUSY) as url:
        printed = empty.ok("connect", url, stdin="q1\nfail\nq2\n", store=None)
    begins = ("you> ", "agent> ", "error: ", "  (failed)")
    talk = [line for line in printed.splitlines() if line.startswith(begins)]
    assert [line.split()[0] for line in talk] == [
        *["you>", "agent>"],
        *["you>", "error:", "(failed)"],
        *["you>", "agent>"],
    ]
    assert "the model is out of order" in talk[3]


def test_a_lost_connection_and_its_return_are_told_beside_the_conversation(
    empty: Program, tmp_path: Path
) -> None:
    port = free_port()
    with ExitStack() as stack:
        with serving(tmp_path, port=port) as url:
            process = stack.enter_context(empty.started("connect", url, store=None))
            assert process.stdin is not None
            assert process.stderr is not None
            process.stdin.write("a 1\n")
            process.stdin.flush()
            read_until(process, "agent> a.0")
        assert "connection lost, coming back" in process.stderr.readline()
        with serving(tmp_path, port=port):
            assert "connected again" in process.stderr.readline()
            printed, complaints = process.communicate("b 2\n", timeout=30)
    assert "agent> b.0 b.1" in printed
    assert (process.returncode, complaints) == (0, "")


async def test_an_event_of_an_unknown_type_is_shown_with_its_type_and_fields(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def events() -> AsyncIterator[LiveEvent]:
        yield UnknownEvent(kind="shop.card", fields={"title": "Tea"}, seq=4)

    await Screen().follow(events())
    assert capsys.readouterr().out.strip() == 'shop.card {"title": "Tea"}'


def test_the_end_of_input_without_a_line_is_the_end(empty: Program, url: str) -> None:
    assert "you>" not in empty.ok("connect", url, stdin="", store=None)


def test_a_token_is_needed_where_one_is_asked_for_and_is_never_printed(
    empty: Program, tmp_path: Path
) -> None:
    with serving(tmp_path, TOKENS=f'{{"{TOKEN}": "ana"}}') as url:
        assert "not let this client in" in empty.refused("connect", url, store=None)
        for words, env in (
            ((url,), {"TERTULIA_TOKEN": TOKEN}),
            ((url, "--token", TOKEN), {}),
            ((f"{url}?token={TOKEN}",), {}),
        ):
            done = empty("connect", *words, stdin="a 1\n", store=None, **env)
            assert done.returncode == 0, done.stderr
            assert "agent> a.0" in done.stdout
            assert TOKEN not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("http://127.0.0.1:9/ws",), "ws://"),
        (("ws://127.0.0.1:9/ws",), "cannot be reached"),
        (("ws://127.0.0.1:9/ws", "--after", "3"), "session_id"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(
    empty: Program, words: tuple[str, ...], told: str
) -> None:
    assert told in empty.refused("connect", *words, store=None)


def test_a_variable_without_a_name_is_refused(empty: Program) -> None:
    done = empty("connect", "ws://127.0.0.1:9/ws", "--variable", "=Ana", store=None)
    assert done.returncode == 2
    assert "write it like name=Ana" in done.stderr


def test_ctrl_c_stops_the_answer_and_a_second_one_leaves(empty: Program, url: str) -> None:
    with on_terminal(empty, "connect", url) as terminal:
        terminal.until("you> ")
        terminal.type("a 20 3")
        terminal.until("agent> a.0 a.1 a.2 ")
        terminal.process.send_signal(signal.SIGINT)
        terminal.until("(stopped)")
        terminal.until("you> ")
        terminal.type("b 2")
        terminal.until("agent> b.0 b.1 ")
        terminal.until("you> ")
        assert terminal.interrupt() == 130


def test_in_a_pipe_ctrl_c_stops_one_answer_and_the_next_line_is_said(
    empty: Program, url: str
) -> None:
    with empty.started("connect", url, store=None) as process:
        assert process.stdin is not None
        process.stdin.write("a 20 3\nb 2\n")
        process.stdin.flush()
        read_until(process, "agent> a.0 a.1 a.2 ")
        process.send_signal(signal.SIGINT)
        printed, complaints = process.communicate(timeout=30)
        assert (process.returncode, complaints) == (0, "")
        assert "(stopped)" in printed
        assert "agent> b.0 b.1 " in printed


def test_a_connection_that_another_one_takes_over_is_told(empty: Program, url: str) -> None:
    with empty.started("connect", url, store=None) as process:
        top = read_until(process, "\n") + read_until(process, "\n")
        session = top.split()[-1]
        assert "agent> a.0" in empty.ok(
            "connect", url, "--session", session, stdin="a 1", store=None
        )
        assert process.wait(timeout=30) == 2
        assert process.stderr is not None
        assert "newer connection" in process.stderr.read()
