"""`tertulia connect`: talk with a live session in the terminal."""

from __future__ import annotations

import asyncio
import shlex
import signal
import sys
from urllib.parse import urlsplit

import click

from tertulia.cli.chat_screen import program
from tertulia.cli.connect_screen import Screen
from tertulia.cli.lines import Lines
from tertulia.client import LiveClient
from tertulia.errors import ConnectionEnded, LiveError


@click.command()
@click.argument("url")
@click.option(
    "--token",
    metavar="TEXT",
    envvar="TERTULIA_TOKEN",
    help="Shown to the server; better in TERTULIA_TOKEN, where no list of processes has it.",
)
@click.option("--session", metavar="ID", help="Come back to a session.")
@click.option(
    "--after",
    metavar="SEQ",
    type=click.IntRange(min=0),
    help="With --session: begin with what came after a position.",
)
@click.option(
    "--variable",
    "variables",
    metavar="NAME=TEXT",
    multiple=True,
    help="An initial variable of a new session; can be repeated.",
)
def connect(
    url: str,
    token: str | None,
    session: str | None,
    after: int | None,
    variables: tuple[str, ...],
) -> None:
    """Talk with the live session at a URL, as in ws://127.0.0.1:8080/ws.

    Each line that is not empty is said to the agent, and its answer comes as it is made. Ctrl-C
    stops the answer, a second one leaves; the end of input leaves after the last answer. A
    connection that is lost comes back by itself.
    """
    screen = Screen()
    client = LiveClient(
        url,
        token=token,
        session_id=session,
        after=after,
        variables=_pairs(variables),
        on_state=screen.state,
    )
    asyncio.run(_Talk(client, url, screen).go())


def _pairs(variables: tuple[str, ...]) -> dict[str, str]:
    for variable in variables:
        if not variable.partition("=")[1] or not variable.partition("=")[0]:
            raise click.UsageError(f"--variable {variable!r}: write it like name=Ana")
    return {name: text for name, _, text in (each.partition("=") for each in variables)}


class _Talk:
    """One conversation, from connecting to leaving."""

    def __init__(self, client: LiveClient, url: str, screen: Screen) -> None:
        self._client = client
        self._url = _shown(url)
        self._screen = screen
        self._lines = Lines(sys.stdin.fileno())
        self._work: asyncio.Task[None] | None = None
        self._interrupting: asyncio.Task[None] | None = None
        self._answering = False
        self._left = False

    async def go(self) -> None:
        """Talk until there is no more to say. Raises LiveError, and KeyboardInterrupt."""
        async with self._client:
            click.echo(f"server   {self._url}\nsession  {self._client.session_id or 'unnamed'}")
            asyncio.get_running_loop().add_signal_handler(signal.SIGINT, self._stop)
            showing = asyncio.create_task(self._screen.follow(self._client.events()))
            self._work = asyncio.create_task(self._talk())
            try:
                await self._ended(self._work, showing)
            finally:
                showing.cancel()
                await asyncio.gather(showing, return_exceptions=True)
                self._screen.end()
        self._farewell()

    async def _ended(self, work: asyncio.Task[None], showing: asyncio.Task[None]) -> None:
        """Wait until nothing is said any more, or nothing comes any more."""
        await asyncio.wait((work, showing), return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        if self._left:
            raise KeyboardInterrupt
        for task in (showing, work):
            error = task.exception() if task.done() and not task.cancelled() else None
            if error is not None and not isinstance(error, ConnectionEnded):
                raise error

    async def _talk(self) -> None:
        await self._client.join()
        while True:
            self._screen.ask()
            line = await self._lines.next()
            if line is None:
                return
            self._screen.echo(line)
            await self._say(line)

    async def _say(self, line: str) -> None:
        self._answering = True
        answer = self._client.ask(line)
        try:
            reply = await answer.whole()
            await self._screen.answered(reply.request_id)
        except LiveError as error:
            if type(error) is not LiveError:
                raise
            if answer.request_id is not None:
                await self._screen.answered(answer.request_id)
        finally:
            self._answering = False
            self._interrupting = None

    def _stop(self) -> None:
        """Ctrl-C: stop the answer; without one, or a second time, leave."""
        if self._answering and self._interrupting is None:
            self._interrupting = asyncio.create_task(self._interrupt())
        elif self._work is not None:
            self._left = True
            self._work.cancel()

    async def _interrupt(self) -> None:
        try:
            await self._client.interrupt()
        except LiveError as error:
            self._screen.complain(str(error))

    def _farewell(self) -> None:
        if self._client.session_id is None:
            return
        words = [*program(), "connect", self._url, "--session", self._client.session_id]
        if self._client.seq is not None:
            words += ["--after", str(self._client.seq)]
        click.echo(f"\nTo come back:\n  {shlex.join(words)}")


def _shown(url: str) -> str:
    """A URL without what may be secret in it."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=host, query="", fragment="").geturl()
