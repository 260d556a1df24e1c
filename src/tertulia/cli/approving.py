"""`tertulia pending`, `approve` and `reject`: tool calls that wait for a person."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from tertulia.approvals import Approval
from tertulia.cli import places, texts
from tertulia.runtime import Runtime
from tertulia.session import Session
from tertulia.stores.base import SessionRow


class Waiting(msgspec.Struct, frozen=True):
    """A call that waits, and where."""

    session: str
    app: str | None
    approval: Approval


@click.command()
@click.argument("session", required=False)
@places.app_option
@places.json_option
@places.store_option
def pending(session: str | None, app: str | None, as_json: bool, store: str) -> None:
    """List the tool calls that wait for an approval, in a SESSION or in all of them."""

    async def work(runtime: Runtime) -> list[Waiting]:
        if session is not None:
            return await _waiting(runtime, await places.row_of(runtime, session, app))
        every = places.every_row(runtime, app)
        rows = [row async for row in every if row.open_turn is not None]
        return [each for row in rows for each in await _waiting(runtime, row)]

    found = places.run(store, work)
    if as_json:
        texts.print_json([_told(each) for each in found])
    elif found:
        _print(found)
    else:
        click.echo("nothing waits for an approval", err=True)


async def _waiting(runtime: Runtime, row: SessionRow) -> list[Waiting]:
    calls = runtime.session(row.id, app_name=row.app).pending
    return [Waiting(row.id, row.app, approval) for approval in calls]


def _told(waiting: Waiting) -> dict[str, Any]:
    return {"session": waiting.session, "app": waiting.app, **texts.fields(waiting.approval)}


def _print(found: list[Waiting]) -> None:
    texts.print_columns(
        ("session", "app", "call", "agent", "since", "wants to"),
        [
            (
                each.session,
                each.app or "-",
                each.approval.id,
                each.approval.agent or "-",
                f"{each.approval.requested[:19]}Z".replace("T", " "),
                texts.wish_text(each.approval),
            )
            for each in found
        ],
    )


@click.command()
@click.argument("session")
@click.argument("call")
@places.app_option
@places.json_option
@places.store_option
def approve(session: str, call: str, app: str | None, as_json: bool, store: str) -> None:
    """Allow a tool CALL that waits in a SESSION, as `tertulia pending` names it.

    It runs when the program of the session goes on with the turn, by `session.resume()`.
    """

    async def decide(found: Session) -> Approval:
        return await found.approve(call)

    _decide(session, app, store, decide, as_json)


@click.command()
@click.argument("session")
@click.argument("call")
@click.option("--reason", metavar="TEXT", help="Why; the model is told so, and the audit keeps it.")
@places.app_option
@places.json_option
@places.store_option
def reject(
    session: str, call: str, reason: str | None, app: str | None, as_json: bool, store: str
) -> None:
    """Refuse a tool CALL that waits in a SESSION: it never runs, and the model is told so."""

    async def decide(found: Session) -> Approval:
        return await found.reject(call, reason)

    _decide(session, app, store, decide, as_json)


def _decide(session: str, app: str | None, store: str, decide: Any, as_json: bool) -> None:
    async def work(runtime: Runtime) -> tuple[Approval, int]:
        found = await places.existing(runtime, session, app)
        approval = await decide(found)
        return approval, len(found.pending)

    approval, left = places.run(store, work)
    if as_json:
        texts.print_json(texts.fields(approval))
        return
    click.echo(f"{approval.decision}: {texts.wish_text(approval)}")
    if left:
        click.echo(f"{texts.count(left, 'call')} of {session} still to be decided")
    else:
        click.echo(f"session.resume() goes on with turn {approval.turn} of {session}")
