"""What `tertulia doctor` finds and says of a PostgreSQL database."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from typing import Any

import click

import tertulia as package
from tertulia import settings
from tertulia.cli import places, seeing, texts
from tertulia.stores.postgres import maintenance
from tertulia.stores.postgres.maintenance import Checkup


def examined(store: str) -> Checkup:
    """What a checkup finds in a database, which is named. Raises StoreError, ConfigurationError."""
    click.echo(f"store: {places.shown(store)}", err=True)
    return asyncio.run(maintenance.check(store))


def report(found: Checkup, faults: list[str], as_json: bool) -> None:
    """Say what was found, and what of it is a fault."""
    if as_json:
        texts.print_json(_json(found, faults))
        return
    texts.print_facts(
        [
            ("tertulia", f"{package.__version__}, Python {sys.version.split()[0]}"),
            ("database", found.url),
            ("postgresql", found.server_version),
            ("schema", found.schema_version),
            ("incarnation", found.incarnation),
            ("size", texts.count(found.bytes, "byte")),
            ("tables", {name: size for name, size in found.tables.items() if size > 1 << 20}),
            ("to be removed", found.removals or None),
            ("vectors", "pgvector" if found.vectors else "compared in Python: no pgvector"),
            ("model", settings.model()),
        ]
    )
    for worker in map(seeing.worker_view, found.workers):
        click.echo(
            f"worker {worker.worker[:8]} on {worker.host}, process {worker.process}: "
            f"{worker.state}, heard of {worker.lag:.1f} s ago"
        )
    for note in _notes(found):
        click.echo(f"note: {note}")
    for fault in faults:
        click.echo(f"BAD: {texts.short(fault, 400)}")
    if not faults:
        click.echo("ok: nothing is wrong")


def _json(found: Checkup, faults: list[str]) -> dict[str, Any]:
    workers = [texts.fields(seeing.worker_view(row)) for row in found.workers]
    hidden = {"workers": workers, "faults": faults, "notes": list(_notes(found))}
    shown = {name: getattr(found, name) for name in found.__struct_fields__ if name not in hidden}
    return {**shown, **hidden}


def _notes(found: Checkup) -> Iterator[str]:
    """What is no fault, and should be known."""
    if found.durability.crash and not found.durability.primary:
        reason = found.durability.reason
        yield f"what is acknowledged does not survive the loss of the server: {reason}"
    for name in found.left:
        yield f"migration {name} waits until no older code runs: `tertulia migrate --finish`"
    if found.removals and not any(row.alive for row in found.workers):
        yield "deleted sessions are still to be removed, which the next worker does when it starts"
