"""The server of ``make demo-live``: the demo's agents in a small graph, and a page that shows it.

python -m tertulia.server.demo --port 8080 --store sqlite:///demo.db
"""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Any, TypeVar, cast
from uuid import uuid4

import click

from tertulia.agents.demo import demo_agent
from tertulia.agents.offline import OFFLINE
from tertulia.errors import AgentError, InvalidInput
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


class WordsCounted(LiveEvent, type="demo.words", kept=True):
    """How many words were said so far."""

    user: int
    agent: int


class CommandNode(Node):
    """Keeps from the agent what is not for it: a command is answered here."""

    _said = ""

    async def process_event(self, event: LiveEvent) -> None:
        """Let everything pass but the request to answer a command."""
        if isinstance(event, TranscriptUpdate):
            self._said = event.content.strip()
        if isinstance(event, LLMRequest) and self._said == "/words":
            await self._tell()
            return
        await self.send_event(event)

    async def _tell(self) -> None:
        counted = self.session.context.get("words", {})
        told = WordsCounted(user=counted.get("user", 0), agent=counted.get("agent", 0))
        text = f"{told.user} words of yours, {told.agent} of mine."
        request_id = uuid4().hex
        await self.send_event(told)
        await self.send_event(ResponseStart(request_id=request_id))
        await self.send_event(ResponseChunk(text=text, request_id=request_id))
        await self.send_event(ResponseEnd(request_id=request_id))


class WordNode(BackgroundNode):
    """Counts the words of both sides, beside the flow, into the context of the session."""

    _open = 0

    async def process_event(self, event: LiveEvent) -> None:
        """Count; of an answer, once it is whole."""
        if isinstance(event, TranscriptUpdate):
            self._count("user", len(event.content.split()))
        elif isinstance(event, ResponseChunk):
            self._open += len(event.text.split())
        elif isinstance(event, ResponseEnd):
            self._count("agent", self._open)
            self._open = 0

    def _count(self, who: str, more: int) -> None:
        counted = self.session.context.get("words", {})
        self.session.context["words"] = {**counted, who: counted.get(who, 0) + more}


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


def free_port(wanted: int) -> int:
    """The port, or another one where somebody has it already."""
    for port in (wanted, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
            return int(probe.getsockname()[1])
    raise InvalidInput(f"there is no free port on {HOST}")


@click.command()
@click.option("--port", type=click.IntRange(1, 65_535), default=8080)
@click.option("--store", default="sqlite:///demo.db")
@click.option("--model", default=OFFLINE)
def main(port: int, store: str, model: str) -> None:
    """Serve the demo until Ctrl-C."""
    os.environ.setdefault("TERTULIA_LOG", "warning")
    try:
        app = demo_app(model, store=store)
        port = free_port(port)
        click.echo(f"Open  http://{HOST}:{port}/demo")
        click.echo(f"Or    tertulia connect ws://{HOST}:{port}/ws")
        click.echo("Stop it at any time, also in the middle of an answer, and start it again: the")
        click.echo("page takes up where it was. Ctrl-C ends it.")
        with contextlib.suppress(KeyboardInterrupt):
            app.run(HOST, port)
    except AgentError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
