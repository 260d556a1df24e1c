"""`tertulia cluster`: the workers of a store, who holds what, lag and load."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click

from tertulia.cli import places, texts
from tertulia.cli.seeing import ClusterView, HeldView, SweepView, WorkerView, look
from tertulia.runtime import Runtime

if TYPE_CHECKING:
    from rich.console import Group

REFRESH_SECONDS = 1.0
SHORT = 8
WORKERS = ("worker", "host", "process", "state", "since", "lag", "held", "seats", "load", "url")
HELD = ("session", "app", "worker", "turn", "last event")


@click.command()
@click.option("--held", "with_held", is_flag=True, help="Also list the sessions that are held.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=50,
    show_default=True,
    metavar="N",
    help="With --held: how many at most, the one that has been quiet longest first.",
)
@click.option("--watch", is_flag=True, help="Look again each second, until Ctrl-C.")
@places.json_option
@places.store_option
def cluster(with_held: bool, limit: int, watch: bool, as_json: bool, store: str) -> None:
    """Show the workers of a store: who lives, who holds what, lag and load.

    A database also says what an acknowledged commit survives, its version and its size. A worker
    is suspect when it has been silent for longer than it should, and dead when others may take
    over what it holds. With --watch and --json each look is one line.
    """

    async def work(runtime: Runtime) -> None:
        async def seen() -> ClusterView:
            return await look(runtime, store, limit if with_held else 0)

        if not watch:
            _show(await seen(), with_held, as_json)
        elif as_json or not _draws():
            while True:
                _show(await seen(), with_held, as_json, line=True)
                await asyncio.sleep(REFRESH_SECONDS)
        else:
            await _watch(seen, with_held)

    places.run(store, work)


def _show(view: ClusterView, with_held: bool, as_json: bool, *, line: bool = False) -> None:
    """Print it: JSON, a table on a terminal, plain text in a pipe."""
    if as_json:
        (texts.print_json_line if line else texts.print_json)(_json(view, with_held))
    elif _draws():
        from rich.console import Console

        Console(highlight=False, markup=False).print(_drawn(view, with_held))
    else:
        _print(view, with_held)
        if line:
            click.echo()


def _draws() -> bool:
    """Whether this is a terminal on which something can be drawn in place."""
    return sys.stdout.isatty() and os.environ.get("TERM") not in {"dumb", "unknown"}


def _json(view: ClusterView, with_held: bool) -> dict[str, Any]:
    data = texts.fields(view)
    if not with_held:
        del data["held"]
    return data


def _print(view: ClusterView, with_held: bool) -> None:
    if view.workers:
        texts.print_columns(WORKERS, map(_worker, view.workers))
    if with_held and view.held:
        click.echo()
        texts.print_columns(HELD, map(_held, view.held))
    if view.workers:
        click.echo()
    for text in _lines(view):
        click.echo(text)


def _drawn(view: ClusterView, with_held: bool) -> Group:
    from rich.console import Group

    parts: list[Any] = [_table(WORKERS, map(_worker, view.workers))] if view.workers else []
    if with_held and view.held:
        parts.append(_table(HELD, map(_held, view.held)))
    return Group(*parts, *_lines(view))


def _table(heads: Iterable[str], rows: Iterable[tuple[str, ...]]) -> Any:
    from rich.box import SIMPLE
    from rich.table import Table
    from rich.text import Text

    table = Table(*heads, box=SIMPLE)
    for row in rows:
        table.add_row(*(Text(texts.plain(cell)) for cell in row))
    return table


async def _watch(seen: Any, with_held: bool) -> None:
    """Draw it again each second, in place."""
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False, markup=False)
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as screen:
        while True:
            screen.update(_drawn(await seen(), with_held), refresh=True)
            await asyncio.sleep(REFRESH_SECONDS)


def _worker(one: WorkerView) -> tuple[str, ...]:
    load = ", ".join(f"{name} {value}" for name, value in sorted(one.load.items()))
    return (
        one.worker[:SHORT],
        one.host or "-",
        "-" if one.process is None else str(one.process),
        one.state,
        one.since or "-",
        "-" if one.lag is None else f"{one.lag:.1f} s",
        str(one.held),
        "-" if one.seats is None else str(one.seats),
        texts.short(load) or "-",
        one.url or "-",
    )


def _held(one: HeldView) -> tuple[str, ...]:
    return one.session, one.app or "-", one.worker[:SHORT], str(one.turn), one.active


def _lines(view: ClusterView) -> Iterator[str]:
    """What there is to say beside the tables."""
    if not view.workers:
        yield "no worker: no process has the store open"
    yield f"sweep: {_sweep(view.sweep)}"
    yield f"durability: {_survives(view.durability)}"
    if view.database is not None:
        yield _size(view.database)
    for note in view.notes:
        yield f"note: {texts.short(note, 400)}"


def _sweep(sweep: SweepView | None) -> str:
    if sweep is None:
        return "no worker has swept yet"
    if sweep.worker is None:
        return f"free since {sweep.since} (after term {sweep.term})"
    died = ", which died" if sweep.state == "dead" else ""
    return f"{sweep.worker[:SHORT]}{died}, since {sweep.since} (term {sweep.term})"


def _survives(durability: dict[str, Any]) -> str:
    """Plainly, what is lost when."""
    reason = durability["reason"]
    if not durability["crash"]:
        return f"what is acknowledged MAY BE LOST by a crash of the server: {reason}"
    if not durability["primary"]:
        return f"what is acknowledged survives a crash, but NOT the loss of the server: {reason}"
    return f"what is acknowledged survives the loss of the primary: {reason}"


def _size(database: dict[str, Any]) -> str:
    largest = list(database["tables"].items())[:3]
    parts = ", ".join(f"{name} {_mb(size)}" for name, size in largest)
    removals = database["removals"]
    rest = f"; {texts.count(removals, 'removal')} to be finished" if removals else ""
    return (
        f"database: PostgreSQL {database['server_version']}, schema {database['schema_version']}, "
        f"{_mb(database['bytes'])} ({parts}){rest}"
    )


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
