"""What is different on a terminal: questions, and Ctrl-C in the middle of an answer."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
from collections.abc import Generator
from contextlib import contextmanager, suppress

import pytest
from tests.cli.program import PROGRAM, Program, environment


class Terminal:
    """The program on a terminal, and somebody in front of it."""

    def __init__(self, process: subprocess.Popen[bytes], screen: int) -> None:
        self.process = process
        self._screen = screen

    def type(self, line: str) -> None:
        """Type a line."""
        os.write(self._screen, f"{line}\n".encode())

    def until(self, text: str) -> str:
        """What is shown, up to some text."""
        seen = b""
        while text.encode() not in seen:
            seen += os.read(self._screen, 1)
        return seen.decode()

    def interrupt(self) -> int:
        """Press Ctrl-C at a prompt, again if that came before it was read; the exit status."""
        for _ in range(20):
            self.process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                return self.process.wait(timeout=1.5)
        return self.end()

    def end(self) -> int:
        """The exit status."""
        return self.process.wait(timeout=30)


@contextmanager
def on_terminal(
    program: Program, *words: str, terminal: str = "dumb", **env: str
) -> Generator[Terminal]:
    """Start the program on a terminal of its own; it is killed at the end of the block."""
    screen, keyboard = pty.openpty()
    process = subprocess.Popen(
        [*PROGRAM, *words, "--store", program.url],
        stdin=keyboard,
        stdout=keyboard,
        stderr=keyboard,
        cwd=program.folder,
        env=environment(program.folder, TERM=terminal, **env),
    )
    try:
        yield Terminal(process, screen)
    finally:
        process.kill()
        process.wait()
        os.close(keyboard)
        os.close(screen)


def test_ctrl_c_stops_an_answer_and_the_chat_goes_on(empty: Program) -> None:
    with on_terminal(empty, "chat", "mine", TERTULIA_OFFLINE_PAUSE="0.2") as terminal:
        terminal.until("you> ")
        terminal.type("hello")
        terminal.until("demo> Hello! I")
        terminal.process.send_signal(signal.SIGINT)
        terminal.until("(stopped; what you have seen of the answer is kept)")
        terminal.type("/quit")
        terminal.until("To look inside:")
        assert terminal.end() == 0
    messages = empty.json("show", "mine")["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant"]
    assert messages[1]["content"].startswith("Hello! I")


def test_an_approval_is_asked_for_on_a_terminal(empty: Program) -> None:
    with on_terminal(empty, "chat", "mine") as terminal:
        terminal.until("you> ")
        terminal.type("order a cake")
        terminal.until("? [y/n] ")
        terminal.type("y")
        terminal.until("order_desk> place order: order 1 is placed: a cake")
        terminal.until("you> ")
        terminal.type("/quit")
        terminal.until("To look inside:")
        assert terminal.end() == 0
    assert empty.json("show", "mine")["state"] == {"orders": ["a cake"]}


def test_what_was_decided_elsewhere_is_not_decided_again(empty: Program) -> None:
    with on_terminal(empty, "chat", "mine") as terminal:
        terminal.until("you> ")
        terminal.type("order a cake")
        terminal.until("? [y/n] ")
        [waiting] = empty.json("pending", "mine")
        empty.ok("reject", "mine", waiting["id"], "--reason", "no cake")
        terminal.type("y")
        terminal.until("this was decided elsewhere meanwhile")
        assert "no cake" in terminal.until("you> ")
    assert empty.json("show", "mine")["state"] == {}


def test_ctrl_c_at_the_prompt_ends_the_chat(empty: Program) -> None:
    with on_terminal(empty, "chat") as terminal:
        terminal.until("you> ")
        assert terminal.interrupt() == 130


@pytest.mark.parametrize(("answer", "left", "status"), [("n", 3, 2), ("y", 1, 0)])
def test_erase_asks_on_a_terminal(program: Program, answer: str, left: int, status: int) -> None:
    with on_terminal(program, "erase", "ana") as terminal:
        asked = terminal.until("[y/N]: ")
        assert "erase 2 sessions and all state of user 'ana'" in asked
        terminal.type(answer)
        assert terminal.end() == status
    assert len(program.json("sessions")) == left


def test_ctrl_c_at_a_question_is_a_no(program: Program) -> None:
    with on_terminal(program, "erase", "ana") as terminal:
        terminal.until("[y/N]: ")
        assert terminal.interrupt() == 130
    assert len(program.json("sessions")) == 3
