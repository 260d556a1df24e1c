"""The server of ``make demo-live``: the demo's agents in a small graph, and a page that shows it.

python -m tertulia.server.demo --port 8080 --store sqlite:///demo.db
"""

from __future__ import annotations

import errno
import os
import socket
from typing import Any, TypeVar, cast

import click

from tertulia.agents.demo import demo_agent
from tertulia.agents.offline import OFFLINE
from tertulia.errors import AgentError
from tertulia.live import AgentNode, AgentSession, BackgroundNode, Node
from tertulia.server.app import AgentApp
from tertulia.wire.events import (
    LiveEvent,
    LLMRequest,
    ResponseChunk,
    ResponseEnd,
    ResponseStart,
    TranscriptUpdate,
)

HOST = "127.0.0.1"
LIGHTS = "lights"
"""The initial variable with which a client asks to be told which node works."""
GREETING = (
    "Hello! Tell me something about you, ask what 12 * 12 is, order two coffees, or type /words."
)

N = TypeVar("N", bound=Node)


class NodeWorks(LiveEvent, type="demo.node"):
    """A node begins to work on an event ("start"), or has done so ("end")."""

    name: str
    phase: str


class Command(LiveEvent, type="demo.command"):
    """The user typed a command, which a node further on answers."""

    name: str
    request_id: str | None


class CommandNode(Node):
    """Makes commands of what begins with a slash: the agent is not asked to answer them."""

    _said = ""

    async def process_event(self, event: LiveEvent) -> None:
        """Let everything pass, but the request to answer a command."""
        if isinstance(event, TranscriptUpdate):
            self._said = event.content.strip()
        if isinstance(event, LLMRequest) and self._said.startswith("/"):
            event = Command(name=self._said.removeprefix("/"), request_id=event.id)
        await self.send_event(event)


class WordNode(BackgroundNode):
    """Counts the words of both sides, beside the flow, into the context of the session."""

    _given = 0

    async def process_event(self, event: LiveEvent) -> None:
        """Count, or say how many there were; what was said before a command is counted by then."""
        if isinstance(event, TranscriptUpdate):
            self._count("user", len(event.content.split()))
        elif isinstance(event, ResponseChunk):
            self._given += len(event.text.split())
        elif isinstance(event, ResponseEnd):
            given, self._given = self._given, 0
            self._count("agent", given)
        elif isinstance(event, Command):
            await self._answer(event)

    def _count(self, who: str, words: int) -> None:
        self.session.context[who] = self.session.context.get(who, 0) + words

    async def _answer(self, command: Command) -> None:
        user, agent = (self.session.context.get(who, 0) for who in ("user", "agent"))
        text = f"{user} words of yours, {agent} of mine."
        text = text if command.name == "words" else f"There is no /{command.name}; try /words."
        request_id = command.request_id
        await self.send_event(ResponseStart(request_id=request_id))
        await self.send_event(ResponseChunk(text=text, request_id=request_id))
        await self.send_event(ResponseEnd(request_id=request_id))


class Lit(Node):
    """Tells the client when the node works, where it asked to be told."""

    async def process_event(self, event: LiveEvent) -> None:
        """Work on an event, and say so."""
        if LIGHTS not in self.session.initial_variables:
            await super().process_event(event)
            return
        await self.session.send_event(NodeWorks(name=self.name, phase="start"))
        try:
            await super().process_event(event)
        finally:
            await self.session.send_event(NodeWorks(name=self.name, phase="end"))


def lit(kind: type[N]) -> type[N]:
    """A kind of node that tells when it works."""
    return cast("type[N]", type(kind.__name__, (Lit, kind), {}))


def demo_app(model: str = OFFLINE, **settings: Any) -> AgentApp:
    """The app: commands are answered, all else goes to an agent, and words are counted."""
    agent = demo_agent(model, approvals=False)

    async def setup(session: AgentSession) -> None:
        commands = lit(CommandNode)("commands")
        answers = lit(AgentNode)(agent, "agent", greeting=GREETING)
        words = lit(WordNode)("words")
        for node in (commands, answers, words):
            session.add_node(node)
        session.add_edge(commands, answers)
        session.add_edge(answers, words)
        await session.start()
        await session.wait_until_complete()

    return AgentApp(setup, agent=agent, **settings)


def listening(wanted: int) -> socket.socket:
    """A socket that listens on the port, or on another one where somebody has it already."""
    try:
        return socket.create_server((HOST, wanted), backlog=100)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        return socket.create_server((HOST, 0), backlog=100)


@click.command()
@click.option("--port", type=click.IntRange(0, 65_535), default=8080)
@click.option("--store", default="sqlite:///demo.db")
@click.option("--model", default=OFFLINE)
def main(port: int, store: str, model: str) -> None:
    """Serve the demo until Ctrl-C."""
    os.environ.setdefault("TERTULIA_LOG", "warning")
    try:
        app = demo_app(model, store=store)
        with listening(port) as sock:
            port = sock.getsockname()[1]
            click.echo(f"Open  http://{HOST}:{port}/demo")
            click.echo(f"Or    tertulia connect ws://{HOST}:{port}/ws")
            click.echo("Stop it at any time, also in the middle of an answer, and start it again:")
            click.echo(f"the page takes up where it was (PORT={port}). Ctrl-C ends it.")
            app.run(HOST, port, fd=sock.fileno())
    except AgentError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
