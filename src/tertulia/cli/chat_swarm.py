"""A chat with a swarm: who speaks, which policy refuses, who is banned."""

from __future__ import annotations

from typing import Any

import click

from tertulia.agents import Agent
from tertulia.cli import chat_screen, texts
from tertulia.cli.chat_start import model_line, where_it_was
from tertulia.cli.chat_talk import Talk
from tertulia.cli.drawing import the_swarm
from tertulia.runtime import Runtime
from tertulia.swarm import Answer, ClientSession, Swarm

DEMO = "tertulia.cli.demo_swarm"
TRY = """

Try:  order two coffees       an agent hands over to another, and a tool asks for your approval
      I want a pizza          a policy refuses
      this is stupid          another one bans you for half a minute; look at /bans, or /unban
      /back                   to the agent before; /agent NAME to any"""

HELP = """\
/agent [NAME]  who has the floor; with NAME, give it to that agent
/back          go back to the agent before
/bans          what stands against this client
/unban         lift it
/history       what has been said, with positions
/state         what the session remembers
/events        the newest events of the log
/quit          leave; the conversation stays"""


async def begin(runtime: Runtime, target: str, client_id: str, model: str) -> SwarmTalk:
    """Open the session of a client, say who is there and where the conversation was.

    `model` is for agents that name none.
    """
    swarm = the_swarm(target)
    runtime.clients.add(swarm)
    client = await runtime.client_session(client_id, swarm)
    talk = SwarmTalk(runtime, client)
    click.echo(f"swarm    {texts.plain(swarm.name)}: {', '.join(map(texts.plain, swarm.agents))}")
    click.echo(f"policies {_policies(swarm)}")
    click.echo(f"client   {texts.plain(client_id)}, at {texts.plain(client.agent)}")
    click.echo(_models(swarm, model))
    row = await runtime.store.find(swarm.app_name, client_id)
    if row is not None:
        await where_it_was(talk, row)
    click.echo("\nSay something, or /help." + (TRY if row is None and target == DEMO else ""))
    return talk


def _policies(swarm: Swarm) -> str:
    return ", ".join(texts.plain(each.name) for each in swarm.policies) or "none"


def _models(swarm: Swarm, default: str) -> str:
    """Which models answer; `default` is that of agents that name none."""
    named = {name: _model(agent, default) for name, agent in swarm.agents.items()}
    if len(set(named.values())) == 1:
        return model_line(named[swarm.default])
    each = (f"{texts.plain(name)}: {model}" for name, model in named.items())
    return f"models   {', '.join(each)}"


def _model(agent: Agent, default: str) -> str:
    given = agent.model
    return texts.plain(given if isinstance(given, str) else given.name if given else default)


class SwarmTalk(Talk):
    """The client session of a chat."""

    def __init__(self, runtime: Runtime, client: ClientSession) -> None:
        super().__init__(runtime, client.session, client.agent)
        self.client = client
        for name in ("/fork", "/rewind", "/summary"):
            del self._commands[name]
        self._commands |= {
            "/agent": self._agent,
            "/back": self._back,
            "/bans": self._bans,
            "/unban": self._unban,
        }
        self.help = HELP

    async def say(self, line: str) -> None:
        """One turn; what is refused says by whom and why."""
        stream = self.client.stream(line)
        await chat_screen.show_turn(stream, self.client.agent)
        self._report(stream.answer)

    async def _resume(self) -> None:
        answer = await self.client.resume()
        if answer:
            click.echo(f"{texts.plain(str(answer.agent))}> {texts.plain(answer)}")
        self._report(answer)

    def _report(self, answer: Answer) -> None:
        self.waiting = answer.pending
        verdict = answer.verdict
        if verdict is not None and not verdict.allowed:
            why = f": {verdict.reason}" if verdict.reason else ""
            what = "a ban stands" if verdict.banned else f"{verdict.direction} refused"
            click.echo(f"  {texts.short(f'policy {verdict.policy}, {what}{why}')}")
            if verdict.ban is not None:
                click.echo(f"  {_ban_text(verdict.ban)}")
        elif answer.kind == "placeholder":
            click.echo("  (a placeholder: the answer could not be used)")

    async def _agent(self, rest: str) -> None:
        if rest:
            await self.client.change_agent(rest, "asked for in the chat")
        click.echo(f"{texts.plain(self.client.agent)} has the floor")

    async def _back(self, _rest: str) -> None:
        await self.client.change_to_previous("asked for in the chat")
        click.echo(f"{texts.plain(self.client.agent)} has the floor")

    async def _bans(self, _rest: str) -> None:
        for ban in await self.client.swarm.bans(self.client.client_id):
            click.echo(_ban_text(ban))

    async def _unban(self, _rest: str) -> None:
        lifted = await self.client.swarm.unban(self.client.client_id)
        click.echo(f"{texts.count(len(lifted), 'ban')} lifted")


def _ban_text(ban: Any) -> str:
    until = "for ever" if ban.until is None else f"until {texts.moment(ban.until)}"
    reason = f": {ban.reason}" if ban.reason else ""
    return texts.short(f"banned {until} because of {ban.policy}{reason}")
