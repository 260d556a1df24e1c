"""Commands that change one session: prune, rewind, end, reopen."""

from __future__ import annotations

from typing import Any

import click

from tertulia import settings
from tertulia.cli import places, texts
from tertulia.pruning import PruneReport
from tertulia.runtime import Runtime


@click.command()
@click.argument("session")
@click.argument("strategy")
@click.option(
    "--n", type=int, metavar="N", help="For keep_last_n, keep_important: how many messages stay."
)
@click.option(
    "--window-size", type=int, metavar="N", help="For sliding_window: how many messages stay."
)
@click.option(
    "--threshold", type=int, metavar="N", help="For summarize_old: how many messages stay."
)
@click.option("--model", metavar="NAME", help="The model that is asked; else TERTULIA_MODEL.")
@places.app_option
@places.json_option
@places.store_option
def prune(
    session: str,
    strategy: str,
    model: str | None,
    app: str | None,
    as_json: bool,
    store: str,
    **sizes: Any,
) -> None:
    """Hide older messages of a SESSION by a STRATEGY: keep_last_20, keep_last_n, sliding_window.

    summarize_old and keep_important ask a model. It cuts only between turns, and nothing leaves
    the audit.
    """
    if model is not None:
        settings.set_model(model)

    async def work(runtime: Runtime) -> PruneReport:
        found = await places.existing(runtime, session, app)
        return await found.prune(strategy, **sizes)

    report = places.run(store, work)
    if as_json:
        texts.print_json(report)
    else:
        texts.print_facts(texts.fields(report).items())


@click.command()
@click.argument("session")
@click.argument("seq", type=click.IntRange(min=0))
@places.app_option
@places.store_option
def rewind(session: str, seq: int, app: str | None, store: str) -> None:
    """Go back to position SEQ of a SESSION: messages and state are as they were there.

    A position inside a turn means the one before that turn. Rewinding to a later position undoes
    it.
    """

    async def work(runtime: Runtime) -> int:
        found = await places.existing(runtime, session, app)
        return await found.rewind(seq)

    click.echo(f"{session} is as it was at event {places.run(store, work)}")


@click.command()
@click.argument("session")
@click.option("--reason", metavar="TEXT", help="Why; it is kept in the audit.")
@places.app_option
@places.store_option
def end(session: str, reason: str | None, app: str | None, store: str) -> None:
    """End the conversation of a SESSION: its state is cleared, and writes are refused."""

    async def work(runtime: Runtime) -> None:
        found = await places.existing(runtime, session, app)
        await found.end(reason)

    places.run(store, work)
    click.echo(f"{session} has ended; `tertulia reopen` goes on with it")


@click.command()
@click.argument("session")
@places.app_option
@places.store_option
def reopen(session: str, app: str | None, store: str) -> None:
    """Go on with a SESSION that was ended."""

    async def work(runtime: Runtime) -> None:
        found = await places.existing(runtime, session, app)
        await found.reopen()

    places.run(store, work)
    click.echo(f"{session} is open")
