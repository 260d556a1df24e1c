"""`tertulia show` and `tertulia tail`: one session, as it is and as it grows."""

from __future__ import annotations

import asyncio
import stat
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from os import fstat
from typing import Any

import click

from tertulia import events
from tertulia.cli import places, texts
from tertulia.events import Event
from tertulia.messages import Message
from tertulia.runtime import Runtime
from tertulia.session import Session
from tertulia.stores.base import SessionRow


@click.command()
@click.argument("session")
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=20,
    show_default=True,
    metavar="N",
    help="How many messages at most, the newest.",
)
@click.option(
    "--before",
    type=click.IntRange(min=1),
    metavar="SEQ",
    help="Only messages before a position, for paging backwards.",
)
@click.option(
    "--at",
    type=click.IntRange(min=0),
    metavar="SEQ",
    help="The messages as they were at a position.",
)
@places.app_option
@places.json_option
@places.store_option
def show(session: str, app: str | None, store: str, as_json: bool, **paging: int | None) -> None:
    """Show what is known of a SESSION, and its newest messages."""

    async def work(runtime: Runtime) -> None:
        row = await places.row_of(runtime, session, app)
        found = runtime.session(session, app_name=row.app)
        facts = await _facts(runtime, row, found)
        messages = await found.history(**paging)
        handoffs = await _handoffs(found, messages)
        waiting = found.pending
        if as_json:
            told = {"messages": [message.to_dict() for message in messages]}
            told["handoffs"] = [{"seq": each.seq, **(each.body or {})} for each in handoffs]
            texts.print_json(facts | told | {"pending": [texts.fields(each) for each in waiting]})
            return
        texts.print_facts(facts.items())
        _print(messages, handoffs)
        for approval in waiting:
            click.echo(f"\nwaits for an approval: {approval.id}  {texts.wish_text(approval)}")

    places.run(store, work)


async def _handoffs(session: Session, messages: list[Message]) -> list[Event]:
    """The handoffs among some messages: those of turns that are shown."""
    seqs = [message.seq or 0 for message in messages]
    if not seqs:
        return []
    found = await session.events(since=seqs[0], types=events.HANDOFF)
    return [each for each in found if any(each.turn <= seq < each.seq for seq in seqs)]


def _print(messages: list[Message], handoffs: list[Event]) -> None:
    """Messages to read, and each handoff where it happened."""
    left = list(handoffs)
    for message in messages:
        while left and left[0].seq < (message.seq or 0):
            _print_handoff(left.pop(0))
        click.echo(f"\n{texts.message_text(message)}")
    for handoff in left:
        _print_handoff(handoff)


def _print_handoff(event: Event) -> None:
    click.echo(f"\n[{event.seq}] handoff: {texts.handoff_text(event.body or {})}")


async def _facts(runtime: Runtime, row: SessionRow, session: Session) -> dict[str, Any]:
    visible = len(session.messages) if row.visible < 0 else row.visible
    return {
        "session": row.id,
        "app": row.app,
        "user": row.user,
        "status": row.status,
        "turn": await turn_text(runtime, row),
        "created": texts.moment(row.created),
        "active": texts.moment(row.active),
        "visible": visible,
        "events": row.seq,
        "head": row.digest.hex(),
        "forked_at": row.base or None,
        "system": row.details.system,
        "floor": row.details.agent,
        "metadata": row.details.metadata,
        "state": dict(session.state),
        "retention": row.details.retention,
        "hold": row.details.hold,
        "due": None if row.due_at is None else texts.moment(row.due_at),
    }


async def turn_text(runtime: Runtime, row: SessionRow) -> str | None:
    """What to say of an open turn; None where there is none."""
    if row.open_turn is None:
        return None
    if row.suspended:
        return f"open since event {row.open_turn}, waits for an approval"
    if row.holder is not None and await runtime.store.worker_is_alive(row.holder):
        return f"open since event {row.open_turn}, held by a living process"
    return f"open since event {row.open_turn}, abandoned by a process that died"


@click.command()
@click.argument("session")
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@click.option(
    "-n",
    "--limit",
    type=click.IntRange(min=0),
    default=20,
    show_default=True,
    metavar="N",
    help="How many of the newest events to begin with.",
)
@click.option(
    "--after",
    type=click.IntRange(min=0),
    metavar="SEQ",
    help="All events after a position, instead of the newest.",
)
@click.option(
    "--type",
    "types",
    multiple=True,
    metavar="TYPE",
    help="Only events of a type, as in message.added; can be repeated.",
)
@places.app_option
@places.json_option
@places.store_option
def tail(
    session: str, app: str | None, store: str, as_json: bool, follow: bool, **chosen: Any
) -> None:
    """Print the newest events of a SESSION, with --follow also those that come.

    With --json each event is one line.
    """

    def put(event: Event) -> None:
        if as_json:
            texts.print_json_line(event.to_dict())
        else:
            click.echo(texts.event_text(event))

    async def work(runtime: Runtime) -> None:
        row = await places.row_of(runtime, session, app)
        found = runtime.session(session, app_name=row.app)
        last = row.seq
        for event in await _newest(found, **chosen):
            put(event)
            last = max(last, event.seq)
        if follow:
            await _follow(found, last, chosen["types"], put)

    places.run(store, work)


async def _newest(
    session: Session, limit: int, after: int | None, types: tuple[str, ...]
) -> list[Event]:
    if after is None:
        return await session.events(limit=limit, types=types or None)
    return await session.events(since=after + 1, types=types or None)


async def _follow(session: Session, last: int, types: tuple[str, ...], put: Any) -> None:
    async with _while_read():
        async for event in session.follow(after=last):
            if not types or event.type in types:
                put(event)
                sys.stdout.flush()


@asynccontextmanager
async def _while_read() -> AsyncGenerator[None]:
    """Stop the block with BrokenPipeError once nobody reads the pipe that we write to."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    broken: list[bool] = []

    def stop() -> None:
        loop.remove_reader(sys.stdout)
        broken.append(True)
        if task is not None:
            task.cancel()

    watched = _is_pipe()
    if watched:
        loop.add_reader(sys.stdout, stop)
    try:
        yield
    except asyncio.CancelledError:
        if broken:
            raise BrokenPipeError from None
        raise
    finally:
        if watched:
            loop.remove_reader(sys.stdout)


def _is_pipe() -> bool:
    try:
        return sys.platform != "win32" and stat.S_ISFIFO(fstat(sys.stdout.fileno()).st_mode)
    except (OSError, ValueError):
        return False
