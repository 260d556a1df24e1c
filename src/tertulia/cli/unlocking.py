"""`tertulia unlock`: take a session away from a holder that is stuck."""

from __future__ import annotations

import click

from tertulia import events
from tertulia.cli import places
from tertulia.runtime import Runtime
from tertulia.stores.base import SessionRow

CLOSED = (events.TURN_ABANDONED, events.TURN_INTERRUPTED)


@click.command()
@click.argument("session")
@places.app_option
@places.store_option
def unlock(session: str, app: str | None, store: str) -> None:
    """Take a SESSION away from a process that holds it and is stuck.

    Its open turn is closed as abandoned, as after a crash, and what the old holder still writes
    is refused. A turn of a process that died needs no unlock: the next turn closes it. A turn
    that waits for an approval is closed too: what it did stays, and the call never runs.
    """

    async def work(runtime: Runtime) -> tuple[int | None, str]:
        row = await places.row_of(runtime, session, app)
        found = runtime.session(session, app_name=row.app)
        await found.unlock()
        closed = await found.events(since=row.seq + 1, types=CLOSED)
        return (closed[0].turn if closed else None), await _closed(runtime, row)

    turn, how = places.run(store, work)
    if turn is None:
        click.echo(f"{session} is free: no turn had to be closed")
    else:
        click.echo(f"{session} is free: turn {turn} {how}")


async def _closed(runtime: Runtime, row: SessionRow) -> str:
    """What turn it was, and as what it was closed."""
    if row.suspended:
        return "waited for an approval, and was closed as interrupted"
    alive = row.holder is not None and await runtime.store.worker_is_alive(row.holder)
    holder = "a living process" if alive else "a process that died"
    return f"of {holder} was closed as abandoned"
