"""One chat as it goes: a line is a message to the agent, or a command that begins with a slash."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any

import click

from tertulia.approvals import Approval
from tertulia.cli import chat_screen, places, texts
from tertulia.errors import AgentError, ApprovalPending
from tertulia.runtime import Runtime

HELP = """\
/history       what has been said, with positions
/state         what the session remembers
/fork [ID]     branch off here, and go on in the branch
/rewind N      take back the turn with message N of /history, and all after it
/events        the newest events of the log
/summary       the conversation in short: an answer of a type
/quit          leave; the session stays"""


def new_id() -> str:
    """An id for a new chat, short enough to be typed."""
    return f"chat-{os.urandom(4).hex()}"


class Talk:
    """The session of a chat, and what its lines do to it."""

    def __init__(self, runtime: Runtime, session: Any, name: str) -> None:
        self.runtime = runtime
        self.session = session
        self.over = False
        self.left_open = False
        """A turn is open that nobody runs, and that can go on."""
        self.waiting: list[Approval] = []
        """The tool calls that the next lines decide on."""
        self.help = HELP
        self._name = name
        self._commands: dict[str, Callable[[str], Awaitable[None]]] = {
            "/help": self._help,
            "/history": self._history,
            "/state": self._state,
            "/fork": self._fork,
            "/rewind": self._rewind,
            "/events": self._events,
            "/summary": self._summary,
            "/quit": self._quit,
        }

    @property
    def prompt(self) -> str:
        """What the next line is asked with."""
        if not self.waiting:
            return chat_screen.YOU
        return f"\napprove {texts.wish_text(self.waiting[0])}? [y/n] "

    async def take(self, line: str) -> None:
        """Do what a line says; what goes wrong is told in one line."""
        if line.startswith("/"):
            await self._told(self._command(line))
        elif self.waiting:
            await self._told(self._decide(line))
        else:
            await self._told(self.say(line))

    async def say(self, line: str) -> None:
        """One turn of the agent that has the floor."""
        stream = self.session.stream_async(line)
        await chat_screen.show_turn(stream, self.session.floor or self._name)
        self.waiting = stream.response.pending

    async def go_on(self) -> None:
        """Go on with the turn that is open."""
        self.left_open = False
        await self._told(self._resume())

    async def _told(self, work: Awaitable[None]) -> None:
        """Do something; what goes wrong is told in one line."""
        try:
            await work
        except BrokenPipeError:
            raise
        except ApprovalPending:
            chat_screen.complain("a tool call of this session waits for a yes or a no first")
            self.waiting = self.session.pending
            self.left_open = not self.waiting
        except AgentError as error:
            chat_screen.complain(str(error) or type(error).__name__)
        except Exception as error:
            chat_screen.complain(f"{type(error).__name__}: {error}")

    async def _decide(self, line: str) -> None:
        """Approve the first call that waits, or reject it; when none is left the turn goes on."""
        word, _, reason = line.partition(" ")
        if word.lower() not in ("y", "yes", "n", "no"):
            click.echo("say y or n, and after n the reason if you like; /quit lets it wait")
            return
        waiting = self.waiting[0].id
        if waiting not in [each.id for each in self.session.pending]:
            click.echo("this was decided elsewhere meanwhile")
        elif word.lower().startswith("y"):
            await self.session.approve(waiting)
        else:
            await self.session.reject(waiting, reason.strip() or None)
        self.waiting = self.session.pending
        if not self.waiting:
            await self._resume()

    async def _resume(self) -> None:
        row = await places.row_of(self.runtime, self.session.id, self.session.app_name)
        response = await self.session.resume_async()
        chat_screen.show_rest([each for each in response.messages if (each.seq or 0) > row.seq])
        self.waiting = response.pending

    async def _command(self, line: str) -> None:
        name, _, rest = line.partition(" ")
        command = self._commands.get(name)
        if command is None:
            click.echo(f"{texts.short(name)} is no command; /help lists them")
            return
        await command(rest.strip())

    async def _summary(self, _rest: str) -> None:
        from tertulia.agents.demo import Summary

        response = await self.session.json_async("Summarize our conversation", schema=Summary)
        summary: Summary = response.output
        points = summary.points or [""]
        first, others = ("points", points[0]), [("", point) for point in points[1:]]
        texts.print_facts([("about", summary.about), first, *others])

    async def _help(self, _rest: str) -> None:
        click.echo(self.help)

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
        self.waiting = self.session.pending
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
