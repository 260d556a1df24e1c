"""`tertulia unlock`: take a session away from a holder that is stuck."""

from __future__ import annotations

import click

from tertulia import events
from tertulia.cli import places
from tertulia.runtime import Runtime


@click.command()
@click.argument("session")
@places.app_option
@places.store_option
def unlock(session: str, app: str | None, store: str) -> None:
    """Take a SESSION away from a process that holds it and is stuck.

    Its open turn is closed as abandoned, as after a crash, and what the old holder still writes
    is refused. A turn of a process that died needs no unlock: the next turn closes it.
    """

    async def work(runtime: Runtime) -> tuple[int | None, bool]:
        row = await places.row_of(runtime, session, app)
        alive = row.holder is not None and runtime.store.worker_is_alive(row.holder)
        found = runtime.session(session, app_name=row.app)
        await found.unlock()
        closed = await found.events(since=row.seq + 1, types=events.TURN_ABANDONED)
        return (closed[0].turn if closed else None), alive

    turn, alive = places.run(store, work)
    if turn is None:
        click.echo(f"{session} is free: no turn had to be closed")
    else:
        holder = "a living process" if alive else "a process that died"
        click.echo(f"{session} is free: turn {turn} of {holder} was closed as abandoned")
