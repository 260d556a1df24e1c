"""`tertulia move`: carry a store over to another one."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import click

from tertulia.cli import places, texts
from tertulia.cli.progress import Bar
from tertulia.errors import NotAStore
from tertulia.moving import Moved
from tertulia.moving import move as move_store
from tertulia.stores import SQLiteStore, open_store
from tertulia.stores.base import LogStore

BAD = 1
"""The exit status when something was left."""
SHOWN = 20
"""Sessions that are named."""


@click.command()
@click.option("--from", "source", required=True, metavar="URL", help="The store to move.")
@click.option("--to", "target", required=True, metavar="URL", help="The store that it is to be.")
@click.option("--app", metavar="NAME", help="Only the sessions, state and memories of one app.")
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for a session whose turn is running.",
)
@click.option(
    "--dry-run", is_flag=True, help="Only say what there is to move, and what forbids it."
)
@places.json_option
def move(
    source: str, target: str, app: str | None, wait: float, dry_run: bool, as_json: bool
) -> None:
    """Carry all rows of a store to another one as they are, and prove that nothing changed.

    Each session can only be read in the old store from then on. After an interruption, the same
    command goes on. Exit status: 0 when all was moved, 1 when something was left (it is named).
    """
    click.echo(f"store: {places.shown(source)}, to {places.shown(target)}", err=True)
    bar = Bar("move")

    async def work() -> Moved:
        begin = places.found(source)
        end = _target(target, dry_run=dry_run)
        try:
            if dry_run and end is not None and not await _is_there(end):
                end = None
            return await move_store(
                begin, end, app=app, wait=wait, dry_run=dry_run, progress=bar.reach
            )
        finally:
            await begin.close()
            if end is not None:
                await end.close()

    try:
        moved = asyncio.run(work())
    finally:
        bar.close()
    _tell(moved, as_json)
    if moved.left:
        click.get_current_context().exit(BAD)


def _target(url: str, *, dry_run: bool) -> LogStore | None:
    """The store to move to, which a dry run does not make."""
    if not dry_run:
        return places.found(url, make=True)
    found = open_store(url)
    if isinstance(found, SQLiteStore):
        file = Path(found.path)
        return found if file.exists() and file.stat().st_size else None
    if hasattr(found, "make_tables"):
        cast("Any", found).make_tables = False
    return found


async def _is_there(store: LogStore) -> bool:
    """Whether there is a store already; an empty database is none."""
    if not hasattr(store, "make_tables"):
        return True
    try:
        await store.incarnation()
    except NotAStore:
        await store.close()
        return False
    return True


def _tell(moved: Moved, as_json: bool) -> None:
    if as_json:
        texts.print_json(texts.fields(moved))
        return
    deed = "to move" if moved.dry_run else "moved and verified"
    size = "" if moved.dry_run else f", {texts.count(moved.bytes, 'byte')}"
    click.echo(
        f"{deed}: {texts.count(moved.sessions, 'session')}, {texts.count(moved.events, 'event')}"
        f"{size}"
    )
    if moved.values or moved.receipts:
        click.echo(
            f"and {texts.count(moved.values, 'value')} beside them, "
            f"{texts.count(moved.receipts, 'receipt')}"
        )
    if moved.before:
        click.echo(f"moved before: {texts.count(moved.before, 'session')}")
    for left in moved.left[:SHOWN]:
        name = f"session {left.session_id}" if left.session_id else "a value"
        click.echo(f"LEFT: {name}: {texts.short(left.reason, 400)}")
    if len(moved.left) > SHOWN:
        click.echo(f"LEFT: {len(moved.left) - SHOWN:,} more; --json names them all")
