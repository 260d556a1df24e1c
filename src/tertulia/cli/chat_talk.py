"""One chat as it goes: a line is a message to the agent, or a command that begins with a slash."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any

import click

from tertulia.cli import chat_screen, places, texts
from tertulia.errors import AgentError
from tertulia.runtime import Runtime

HELP = """\
/history       what has been said, with positions
/state         what the session remembers
/fork [ID]     branch off here, and go on in the branch
/rewind N      take back the turn with message N of /history, and all after it
/events        the newest events of the log
/quit          leave; the session stays"""


def new_id() -> str:
    """An id for a new chat, short enough to be typed."""
    return f"chat-{os.urandom(4).hex()}"


class Talk:
    """The session of a chat, and what its lines do to it."""

    def __init__(self, runtime: Runtime, session: Any) -> None:
        self.runtime = runtime
        self.session = session
        self.over = False
        self._commands: dict[str, Callable[[str], Awaitable[None]]] = {
            "/help": self._help,
            "/history": self._history,
            "/state": self._state,
            "/fork": self._fork,
            "/rewind": self._rewind,
            "/events": self._events,
            "/quit": self._quit,
        }

    async def take(self, line: str) -> None:
        """Do what a line says; what goes wrong is told in one line."""
        try:
            if line.startswith("/"):
                await self._command(line)
            else:
                await chat_screen.show_turn(self.session.stream_async(line))
        except BrokenPipeError:
            raise
        except AgentError as error:
            chat_screen.complain(str(error) or type(error).__name__)
        except Exception as error:
            chat_screen.complain(f"{type(error).__name__}: {error}")

    async def _command(self, line: str) -> None:
        name, _, rest = line.partition(" ")
        command = self._commands.get(name)
        if command is None:
            click.echo(f"{texts.short(name)} is no command; /help lists them")
            return
        await command(rest.strip())

    async def _help(self, _rest: str) -> None:
        click.echo(HELP)

    async def _history(self, _rest: str) -> None:
        messages = await self.session.history()
        for message in messages:
            click.echo(texts.message_text(message))
        if not messages:
            click.echo("nothing has been said yet")

    async def _state(self, _rest: str) -> None:
        scopes = [("", dict(self.session.state))]
        if self.session.user_id is not None:
            scopes.append(("user:", dict(self.session.state.user)))
        scopes.append(("app:", dict(self.session.state.app)))
        told = {f"{scope}{key}": value for scope, kept in scopes for key, value in kept.items()}
        texts.print_facts(told.items())
        if not told:
            click.echo("nothing is remembered yet")

    async def _fork(self, rest: str) -> None:
        before = self.session.id
        self.session = await self.session.fork(rest or new_id())
        click.echo(f"this is {self.session.id} now; {before} stays as it is")

    async def _rewind(self, rest: str) -> None:
        if not rest.isdecimal():
            click.echo("say which message to take back, as in /rewind 4; /history has the numbers")
            return
        row = await places.row_of(self.runtime, self.session.id, self.session.app_name)
        position = await self.session.rewind(int(rest))
        click.echo(f"all is as it was at event {position}; /rewind {row.seq} undoes this")
        chat_screen.where_it_was(await self.session.history(limit=2))

    async def _events(self, _rest: str) -> None:
        for event in await self.session.events(limit=20):
            click.echo(texts.event_text(event))

    async def _quit(self, _rest: str) -> None:
        self.over = True
