"""`tertulia migrate`: bring the tables of a database up to date."""

from __future__ import annotations

import asyncio

import click

from tertulia.cli import places
from tertulia.errors import UsageError
from tertulia.stores import PostgresStore, open_store


@click.command()
@places.store_option
def migrate(store: str) -> None:
    """Bring the tables of a PostgreSQL database up to date; again does nothing.

    It needs a user that may create tables, and goes past a pooler that ?direct= names. Files are
    brought up to date by whoever opens them.
    """
    found = open_store(store)
    if not isinstance(found, PostgresStore):
        raise UsageError(
            f"{places.shown(store)} is no database; a file is brought up to date when it is opened"
        )
    click.echo(f"store: {found.url}", err=True)
    before, after, vectors = asyncio.run(found.migrate())
    click.echo(f"version {after}" + (f", was {before}" if before != after else ", as it was"))
    if not vectors:
        click.echo(
            "without pgvector the vectors of memories are compared in Python; a superuser may "
            "CREATE EXTENSION vector",
            err=True,
        )
