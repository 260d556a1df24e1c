"""What a client of a live session shows."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import click
import msgspec

from tertulia.cli import texts
from tertulia.client import State, UnknownEvent
from tertulia.wire.events import (
    AgentErrorEvent,
    AgentEvent,
    AgentLog,
    AgentSpeak,
    EndCall,
    LiveEvent,
    ResponseChunk,
    ResponseEnd,
    ResponseStart,
    TranscriptUpdate,
)

PROMPT = "you> "
AGENT = "agent> "
_QUIET = ("agent.control.", "system.", "agent.ready")
_BASE = frozenset(LiveEvent.__struct_fields__)


class Screen:
    """Prints events as they come; text of the agent goes on where it was."""

    def __init__(self) -> None:
        self._terminal = sys.stdin.isatty()
        self._open = False
        self._asking = False
        self._lost = False
        self._answer: list[str | None] = []
        self._ended: deque[str | None] = deque(maxlen=64)
        self._shown = asyncio.Event()

    async def follow(self, events: AsyncIterator[LiveEvent]) -> None:
        """Show every event, until there is none any more."""
        try:
            async for event in events:
                self._show(event)
        finally:
            self._shown.set()

    async def answered(self, request_id: str | None) -> None:
        """Wait until the end of an answer is on the screen."""
        while request_id not in self._ended:
            self._shown.clear()
            await self._shown.wait()
        self._ended.remove(request_id)

    def ask(self) -> None:
        """Ask for a line; what is not typed is echoed by `echo`."""
        if self._terminal:
            self._put(f"\n{PROMPT}")
        self._asking = self._terminal

    def echo(self, line: str) -> None:
        """A line was given."""
        self._asking = False
        if not self._terminal:
            self._put(f"\n{PROMPT}{texts.plain(line)}\n")

    def complain(self, text: str) -> None:
        """Say in one line what went wrong."""
        self._alone(f"error: {texts.short(text, 4 * texts.WIDTH)}")

    def note(self, text: str) -> None:
        """A line that nobody said."""
        self._alone(click.style(f"  {texts.short(text, 2 * texts.WIDTH)}", dim=True))

    def state(self, state: State, why: str) -> None:
        """Say, beside the conversation, when the connection is lost and when it is back."""
        if state == "waiting":
            self._aside(f"connection lost, coming back … ({why})")
            self._lost = True
        elif state == "open" and self._lost:
            self._aside("connected again")
            self._lost = False

    def end(self) -> None:
        """Begin a new line if there is something on this one."""
        if self._open:
            self._put("\n")
        self._open = False

    def _show(self, event: LiveEvent) -> None:
        if isinstance(event, ResponseStart | ResponseChunk | ResponseEnd):
            self._show_answer(event)
        elif isinstance(event, AgentSpeak):
            self._alone(f"{AGENT}{texts.plain(event.text)}")
        elif isinstance(event, TranscriptUpdate) and event.role == "user":
            self._alone(f"{PROMPT}{texts.plain(event.content)}")
        elif isinstance(event, AgentErrorEvent):
            self.complain(event.message)
        elif isinstance(event, AgentLog):
            self.note(f"{event.name} {_json(event.payload)}")
        elif isinstance(event, EndCall):
            self.note("(the agent ended the conversation)")
        elif isinstance(event, UnknownEvent | AgentEvent):
            self._show_other(event)

    def _show_answer(self, event: ResponseStart | ResponseChunk | ResponseEnd) -> None:
        if isinstance(event, ResponseStart):
            if event.request_id in self._answer:
                self.note("(the answer begins anew)")
                self._answer.remove(event.request_id)
            self._answer = [*self._answer[-63:], event.request_id]
        elif isinstance(event, ResponseChunk):
            self._text(event.text)
        else:
            self.end()
            if event.discarded or event.interrupted:
                self.note("(failed)" if event.discarded else "(stopped)")
            if event.request_id in self._answer:
                self._answer.remove(event.request_id)
            self._ended.append(event.request_id)
            self._shown.set()

    def _show_other(self, event: LiveEvent) -> None:
        if event.type.startswith(_QUIET) or isinstance(event, TranscriptUpdate):
            return
        told = event.fields if isinstance(event, UnknownEvent) else msgspec.to_builtins(event)
        own = {name: value for name, value in told.items() if name not in (*_BASE, "type")}
        self.note(f"{event.type} {_json(own)}")

    def _aside(self, text: str) -> None:
        if sys.stdout.isatty():
            self._leave_prompt()
            self.end()
        click.echo(click.style(f"  {texts.short(text, 2 * texts.WIDTH)}", dim=True), err=True)

    def _text(self, text: str) -> None:
        self._leave_prompt()
        told = texts.plain(text)
        self._put(told if self._open else f"{AGENT}{told}")
        self._open = True

    def _alone(self, text: str) -> None:
        self._leave_prompt()
        self.end()
        click.echo(text)
        sys.stdout.flush()

    def _leave_prompt(self) -> None:
        """What comes while a line is asked for begins below the prompt."""
        if self._asking:
            self._put("\n")
        self._asking = False

    def _put(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False) if value else ""
