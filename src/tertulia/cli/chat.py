"""`tertulia chat`: a conversation in the terminal."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any

import click

from tertulia import settings
from tertulia.cli import chat_screen, places
from tertulia.cli.chat_start import Wanted, begin, model_of
from tertulia.cli.chat_talk import Talk
from tertulia.runtime import Runtime

APP = "chat"
CLIENT = "me"


@click.command()
@click.argument("session", required=False)
@click.option(
    "--model",
    metavar="NAME",
    help="As in openai:gpt-5 or offline; else TERTULIA_MODEL, else by the key that is set.",
)
@click.option("--system", metavar="TEXT", help="A system prompt; it is kept with the session.")
@click.option("--user", metavar="ID", help="Whose session it is.")
@click.option("--new", is_flag=True, help="Begin a new session.")
@click.option(
    "--app", metavar="NAME", default=APP, show_default=True, help="The app it belongs to."
)
@click.option("--swarm", metavar="FILE[:NAME]", help="Talk with a swarm instead of the demo.")
@click.option("--client", metavar="ID", show_default=CLIENT, help="With --swarm: who.")
@places.store_option
def chat(
    store: str, model: str | None, swarm: str | None, client: str | None, **options: Any
) -> None:
    """Talk with an agent in a SESSION, which goes on where it was, also after a crash.

    Without SESSION it goes on with the last one of the app in this store, or begins a new one.
    Each line that is not empty is one message; /help lists what else can be said. What its tools
    may not do without you they ask for first: y or n. With no model named and no key set it talks
    with `offline`, which is rule-based and no language model.

    With --swarm it is the conversation of a --client with the swarm in a Python file or module: who
    speaks, what a policy refuses and who is banned is shown.
    """
    if swarm is not None and any(options[each] for each in ("session", "system", "user", "new")):
        raise click.UsageError("--swarm goes with --client: no SESSION, --system, --user, --new")
    if swarm is None and client is not None:
        raise click.UsageError("--client is who talks with a swarm; name it with --swarm")
    click.echo(f"store    {places.shown(store)}")
    name = model_of(model)
    wanted = Wanted(**options)
    with asyncio.Runner() as runner:
        runtime = Runtime(places.found(store, make=True))
        try:
            talk = runner.run(_begin(runtime, swarm, client or CLIENT, wanted, name))
            _talk(runner, talk)
            runner.run(chat_screen.farewell(runtime, talk.session, store))
        finally:
            runner.run(runtime.close())


async def _begin(
    runtime: Runtime, swarm: str | None, client: str, wanted: Wanted, model: str
) -> Talk:
    if swarm is None:
        return await begin(runtime, wanted, model)
    from tertulia.cli import chat_swarm

    settings.set_model(model)
    return await chat_swarm.begin(runtime, swarm, client, model)


def _talk(runner: asyncio.Runner, talk: Talk) -> None:
    """Take line after line, until there is no more or somebody leaves."""
    chat_screen.edit_lines()
    while not talk.over:
        if talk.left_open:
            _run(runner, talk.go_on())
        line = chat_screen.ask(talk.prompt)
        if line is None:
            return
        _run(runner, talk.take(line))


def _run(runner: asyncio.Runner, work: Coroutine[Any, Any, None]) -> None:
    """Do what is asked; on a terminal Ctrl-C stops only that."""
    try:
        runner.run(work)
    except KeyboardInterrupt:
        if not sys.stdin.isatty():
            raise
        click.echo("\n(stopped; what you have seen of the answer is kept)")
