"""`tertulia export` and `tertulia fork`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tertulia.cli import places, texts
from tertulia.cli.progress import Bar
from tertulia.errors import UsageError
from tertulia.runtime import Runtime
from tertulia.session import Session


@click.command()
@click.argument("session")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["jsonl", "json", "markdown"]),
    default="jsonl",
    show_default=True,
    help="The whole log, which `verify` can check alone, or the messages.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write to a file, whole or not at all, instead of standard output.",
)
@places.app_option
@places.store_option
def export(session: str, kind: Any, output: Path | None, app: str | None, store: str) -> None:
    """Write a SESSION as JSON lines, JSON or Markdown."""
    bar = Bar(f"export {session}")

    async def work(runtime: Runtime) -> None:
        row = await places.row_of(runtime, session, app)
        bar.reach(0, row.seq)
        found = runtime.session(session, app_name=row.app)
        text = await _export(found, kind, output)
        bar.close()
        if output is None:
            click.echo(text, nl=False)
        else:
            click.echo(f"wrote {text}", err=True)

    places.run(store, work, bar=bar)


async def _export(session: Session, kind: Any, output: Path | None) -> str:
    try:
        return await session.export(kind, path=output)
    except OSError as error:
        raise UsageError(f"{output} cannot be written: {error.strerror}") from None


@click.command()
@click.argument("session")
@click.argument("new", required=False)
@click.option(
    "--at",
    type=click.IntRange(min=0),
    metavar="SEQ",
    help="Branch off at a position instead of the end.",
)
@places.app_option
@places.json_option
@places.store_option
def fork(
    session: str, new: str | None, at: int | None, app: str | None, as_json: bool, store: str
) -> None:
    """Branch a NEW session off a SESSION; nothing is copied. Without NEW it gets an id."""

    async def work(runtime: Runtime) -> tuple[str, int]:
        found = await places.existing(runtime, session, app)
        branch = await found.fork(new, at=at)
        row = await places.row_of(runtime, branch.id, found.app_name)
        return row.id, row.base

    made, base = places.run(store, work)
    if as_json:
        texts.print_json({"session": made, "parent": session, "at": base})
    else:
        click.echo(f"{made} goes on from event {base} of {session}")
