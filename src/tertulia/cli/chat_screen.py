"""What a chat shows and how it asks."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from tertulia.cli import places, texts
from tertulia.messages import Message
from tertulia.runtime import Runtime

YOU = "\nyou> "


def edit_lines() -> None:
    """Let the line that is typed be edited, where this Python can do that."""
    if sys.stdin.isatty():
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  # pyright: ignore[reportUnusedImport]


def ask(prompt: str = YOU) -> str | None:
    """The next line that is not blank, None at the end of input.

    What does not come from a terminal is echoed behind the prompt, so that it reads the same.
    """
    while True:
        line = _typed(prompt) if sys.stdin.isatty() else sys.stdin.readline() or None
        if line is None:
            return None
        if line.strip():
            if not sys.stdin.isatty():
                _put(f"{prompt}{texts.plain(line.strip())}\n")
            return line.strip()


def _typed(prompt: str) -> str | None:
    try:
        sys.stdout.flush()
        return input(prompt)
    except EOFError:
        click.echo()
        return None


def _put(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


async def show_turn(stream: Any, name: str) -> None:
    """Print a turn as it happens: text as it comes, tool calls and their results, handoffs.

    `name` is the agent that has the floor.
    """
    line = _Line(name)
    try:
        async for event in stream:
            _show(event, line)
    finally:
        close = getattr(stream, "aclose", None)
        if close is not None:
            await close()
        line.end()


class _Line:
    """Whether the cursor is inside a line, and whose."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._open = False

    def text(self, text: str) -> None:
        """Go on with the answer."""
        told = texts.plain(text)
        _put(told if self._open else f"{texts.plain(self.name)}> {told}")
        self._open = True

    def alone(self, text: str) -> None:
        """A line of its own."""
        self.end()
        _put(f"{text}\n")

    def end(self) -> None:
        """Begin a new line if there is something on this one."""
        if self._open:
            _put("\n")
        self._open = False


def _show(event: Any, line: _Line) -> None:
    if event.type == "text_delta":
        line.text(event.text)
    elif event.type == "tool_call":
        line.alone(f"  -> {texts.call_text(event.call)}")
    elif event.type == "tool_result":
        line.alone(result_text(event.message))
    elif event.type == "handoff":
        line.name = event.handoff.target
        line.alone(f"  {texts.short(line.name)} has the floor now")


def result_text(message: Message) -> str:
    """What a tool said, on one line."""
    return f"  <- {texts.short(message.text, 2 * texts.WIDTH)}"


def show_rest(messages: Sequence[Message]) -> None:
    """Print what a turn has added that was not streamed."""
    for message in messages:
        if message.role == "tool":
            _put(f"{result_text(message)}\n")
            continue
        if message.role == "assistant" and message.text:
            _put(f"{texts.plain(message.agent or 'agent')}> {texts.plain(message.text)}\n")
        for call in message.tool_calls or ():
            _put(f"  -> {texts.call_text(call)}\n")


def complain(text: str) -> None:
    """Say in one line what went wrong; the chat goes on."""
    _put(f"error: {texts.short(text, 4 * texts.WIDTH)}\n")


def where_it_was(messages: Sequence[Message]) -> None:
    """The last messages of the conversation, from a question on if there is one among them."""
    questions = [place for place, message in enumerate(messages) if message.role == "user"]
    if messages:
        click.echo("\nWhere it was:")
    for message in messages[questions[0] if questions else 0 :]:
        text = texts.message_text(message)
        click.echo("\n".join(f"  {line}" for line in text.splitlines()))


async def farewell(runtime: Runtime, session: Any, store: str) -> None:
    """Say how to look inside what is kept."""
    if await runtime.store.find(session.app_name, session.id) is None:
        click.echo("\nNothing was said, and nothing is kept.")
        return
    click.echo("\nTo look inside:")
    shadowed = await runtime.store.find(None, session.id) is not None
    app = ["--app", session.app_name] if shadowed and session.app_name else []
    place = [] if store == places.implied_store() else ["--store", store]
    asked = [["approve", session.id, approval.id] for approval in session.pending]
    for words in (*[[command, session.id] for command in ("show", "tail", "verify")], *asked):
        click.echo(f"  {shlex.join([*program(), *words, *place, *app])}")


def program() -> list[str]:
    """How this program was called, so that the next call can be copied."""
    called = sys.argv[0]
    if Path(called).name == "__main__.py":
        return [Path(sys.executable).name, "-m", "tertulia"]
    if Path(called).name != "tertulia":
        return ["tertulia"]
    found = shutil.which("tertulia")
    return (
        ["tertulia"]
        if found and Path(found).resolve() == Path(called).resolve()
        else [os.path.relpath(called)]
    )
