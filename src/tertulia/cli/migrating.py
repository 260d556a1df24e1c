"""`tertulia migrate`: bring the tables of a database up to date."""

from __future__ import annotations

import asyncio

import click

from tertulia.cli import places
from tertulia.errors import UsageError
from tertulia.stores import PostgresStore, open_store


@click.command()
@click.option("--finish", is_flag=True, help="Also take away what only older code needed.")
@places.store_option
def migrate(store: str, *, finish: bool) -> None:
    """Bring the tables of a PostgreSQL database up to date; again does nothing.

    Run it before newer code is deployed: older code runs on. Run it with --finish when no older
    code runs any more; while some does, it is named and nothing is taken away. It needs a user
    that may create tables, and goes past a pooler that ?direct= names. Files are brought up to
    date by whoever opens them.
    """
    found = open_store(store)
    if not isinstance(found, PostgresStore):
        raise UsageError(
            f"{places.shown(store)} is no database; a file is brought up to date when it is opened"
        )
    click.echo(f"store: {found.url}", err=True)
    done = asyncio.run(found.migrate(finish=finish))
    was = f", was {done.before}" if done.before != done.after else ", as it was"
    click.echo(f"version {done.after}{was}")
    if done.finished:
        click.echo(f"finished: {', '.join(done.finished)}")
    if done.left:
        click.echo(
            f"left for --finish, when no older code runs any more: {', '.join(done.left)}", err=True
        )
    if not done.vectors:
        click.echo(
            "without pgvector the vectors of memories are compared in Python; a superuser may "
            "CREATE EXTENSION vector",
            err=True,
        )
