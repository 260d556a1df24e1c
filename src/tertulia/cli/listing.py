"""`tertulia sessions`: what there is in a store."""

from __future__ import annotations

import click

from tertulia.cli import places, texts
from tertulia.runtime import Runtime, SessionInfo


@click.command()
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=50,
    show_default=True,
    metavar="N",
    help="How many at most.",
)
@click.option(
    "--after",
    type=click.IntRange(min=0),
    default=0,
    metavar="CURSOR",
    help="Go on after a listing: the `cursor` of its last line.",
)
@click.option("--user", metavar="ID", help="Only those of a user.")
@click.option("--app", metavar="NAME", help="Only those of an app.")
@places.json_option
@places.store_option
def sessions(
    limit: int, after: int, user: str | None, app: str | None, as_json: bool, store: str
) -> None:
    """List sessions in the order of their creation, a page at a time."""

    async def work(runtime: Runtime) -> list[SessionInfo]:
        return await runtime.sessions(
            user_id=user, app_name=app, after=after, limit=limit + 1 if limit else 0
        )

    found = places.run(store, work)
    page, more = found[:limit], len(found) > limit
    if as_json:
        texts.print_json(page)
    elif page:
        _print(page)
    else:
        click.echo("no sessions", err=True)
    if more:
        click.echo(f"there are more: --after {page[-1].cursor}", err=True)


def _standing(info: SessionInfo) -> str:
    if info.suspended:
        return "waits for approval"
    return "in a turn" if info.running else info.status


def _print(page: list[SessionInfo]) -> None:
    heads = ("id", "app", "user", "status", "messages", "events", "active", "cursor")
    texts.print_columns(
        heads,
        [
            (
                info.id,
                info.app_name or "-",
                info.user_id or "-",
                _standing(info),
                "?" if info.messages < 0 else str(info.messages),
                str(info.seq),
                f"{info.active[:19]}Z".replace("T", " "),
                str(info.cursor),
            )
            for info in page
        ],
    )
