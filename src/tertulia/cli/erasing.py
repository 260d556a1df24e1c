"""`tertulia erase` and `tertulia sweep`: what goes for good, and what retention says is due."""

from __future__ import annotations

from typing import Any

import click

from tertulia.cli import places, texts
from tertulia.cli.progress import Bar
from tertulia.housekeeping import Swept
from tertulia.runtime import Runtime


@click.command()
@click.argument("user", required=False)
@click.option("--session", metavar="SESSION", help="Erase one session instead of a user.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@places.app_option
@places.json_option
@places.store_option
def erase(
    user: str | None, session: str | None, yes: bool, app: str | None, as_json: bool, store: str
) -> None:
    """Erase all that is kept of a USER in every app, or one session with --session, for good.

    The receipt says what was removed, and what is out of reach: backups and exports.
    """
    if (user is None) == (session is None):
        raise click.UsageError("name a USER, or one session with --session")
    if user is not None and app is not None:
        raise click.UsageError("--app goes with --session; a USER is erased in every app")

    async def work(runtime: Runtime) -> dict[str, Any]:
        if session is None:
            return await _erase_user(runtime, user or "")
        return await _erase_session(runtime, session, app)

    what = places.run(store, lambda runtime: _what(runtime, user, session, app))
    places.confirm(f"erase {what}", yes)
    receipt = places.run(store, work, quiet=True)
    if as_json:
        texts.print_json(receipt)
    else:
        texts.print_facts(receipt.items())


async def _what(runtime: Runtime, user: str | None, session: str | None, app: str | None) -> str:
    """What would be erased, to ask for it."""
    if session is None:
        rows = await runtime.sessions(user_id=user, limit=None)
        return f"{texts.count(len(rows), 'session')} and all state of user {user!r}"
    found = await places.existing(runtime, session, app)
    place = "the default app" if found.app_name is None else f"the app {found.app_name!r}"
    row = await places.row_of(runtime, session, found.app_name)
    forks = len(await runtime.store.children(row.key))
    lose = f"; {texts.count(forks, 'fork')} of it will lose what was inherited"
    inherited = lose if forks else ""
    return f"session {session!r} of {place}{inherited}"


async def _erase_session(runtime: Runtime, session: str, app: str | None) -> dict[str, Any]:
    found = await places.existing(runtime, session, app)
    receipt = await found.delete()
    return {"session": session, "app": found.app_name, "erased": texts.moment(receipt.time)}


async def _erase_user(runtime: Runtime, user: str) -> dict[str, Any]:
    erasure = await runtime.erase_user(user)
    return {"user": user, **texts.fields(erasure), "time": texts.moment(erasure.time)}


@click.command()
@click.option("--dry-run", is_flag=True, help="Only list what is due, with its reasons.")
@places.json_option
@places.store_option
def sweep(dry_run: bool, as_json: bool, store: str) -> None:
    """Do what retention says is due: delete, end, prune.

    Where `auto_prune` is off, what is due is listed and not done.
    """

    async def work(runtime: Runtime) -> list[Swept]:
        return await runtime.sweep(dry_run=dry_run)

    found = places.run(store, work, bar=Bar("sweep"))
    if as_json:
        texts.print_json(found)
    elif found:
        _print_swept(found, dry_run)
    else:
        click.echo("nothing is due")
    if any(one.error for one in found):
        click.get_current_context().exit(1)


def _print_swept(found: list[Swept], dry_run: bool) -> None:
    def outcome(one: Swept) -> str:
        if one.error is not None:
            return f"failed: {one.error}"
        if one.done:
            return "done"
        return "would be done" if dry_run and one.acts else "left"

    heads = ("session", "app", "action", "outcome", "reason")
    texts.print_columns(
        heads,
        [
            (one.session_id, one.app_name or "-", one.action, outcome(one), one.reason)
            for one in found
        ],
    )
