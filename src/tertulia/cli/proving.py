"""`tertulia verify`, `anchor` and `keygen`: what can be proved of a session."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, cast

import click

from tertulia import audit
from tertulia.audit import Verification
from tertulia.cli import files, places, texts
from tertulia.cli.progress import Bar
from tertulia.errors import InvalidInput
from tertulia.runtime import Runtime

BAD = 1
"""The exit status when something does not fit."""

existing_file = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.argument("target", metavar="SESSION|FILE")
@click.option(
    "--anchor",
    "anchor_file",
    type=existing_file,
    metavar="FILE",
    help="A signed head: what came before it must be unchanged.",
)
@click.option(
    "--key",
    "key_file",
    type=existing_file,
    metavar="FILE",
    help="The key that signed the anchor; its public half is enough.",
)
@places.app_option
@places.json_option
@places.store_option
def verify(
    target: str,
    anchor_file: Path | None,
    key_file: Path | None,
    app: str | None,
    as_json: bool,
    store: str,
) -> None:
    """Check the log of a SESSION, or a FILE that `export` wrote, alone and without a store.

    Exit status: 0 when it holds, 1 when it does not (and it names the first event that does not
    fit), 2 when it could not be checked.
    """
    anchor, key = _signed(anchor_file, key_file)
    bar = Bar(f"verify {target}")
    if app is None and Path(target).is_file():
        what = f"file {target}"
        found = files.verify(Path(target), anchor, key, bar)
    else:
        what = f"session {target}"
        found = _verify_session(store, target, app, anchor, key, bar)
    _tell(what, found, anchor, as_json)
    if not found:
        click.get_current_context().exit(BAD)


def _verify_session(
    store: str,
    session: str,
    app: str | None,
    anchor: dict[str, Any] | None,
    key: bytes | None,
    bar: Bar,
) -> Verification:
    async def work(runtime: Runtime) -> Verification:
        row = await places.row_of(runtime, session, app)
        bar.reach(0, row.seq - row.base)
        found = runtime.session(session, app_name=row.app)
        return await found.verify(anchor, key)

    return places.run(store, work, bar=bar)


def _tell(what: str, found: Verification, anchor: dict[str, Any] | None, as_json: bool) -> None:
    if as_json:
        texts.print_json({"target": what, **texts.fields(found)})
        return
    counted = texts.count(found.checked, "event")
    erased = f", {found.erased:,} of them erased" if found.erased else ""
    if found:
        signed = "" if anchor is None else f", and is what was anchored at {anchor.get('time')}"
        click.echo(f"ok: {what} holds{signed} ({counted}{erased}, head {found.head[:16]})")
    else:
        where = "" if found.first_bad is None else f", first at event {found.first_bad}"
        click.echo(f"BAD: {what} does not hold{where}: {found.reason} ({counted} checked)")


def _signed(anchor: Path | None, key: Path | None) -> tuple[dict[str, Any] | None, bytes | None]:
    if anchor is None and key is None:
        return None, None
    if anchor is None or key is None:
        raise InvalidInput("an anchor is checked with its key: give both --anchor and --key")
    try:
        data = json.loads(anchor.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InvalidInput(f"{anchor} is no anchor: {error}") from None
    if not isinstance(data, dict):
        raise InvalidInput(f"{anchor} is no anchor; `tertulia anchor` makes one")
    return cast("dict[str, Any]", data), key.read_bytes()


@click.command()
@click.argument("session")
@click.option(
    "--key",
    "key_file",
    type=existing_file,
    required=True,
    metavar="FILE",
    help="A private key, as `tertulia keygen` makes it; keep it outside of the store.",
)
@click.option(
    "-o",
    "--output",
    type=existing_file,
    metavar="FILE",
    help="Write to a new file instead of standard output.",
)
@places.app_option
@places.store_option
def anchor(session: str, key_file: Path, output: Path | None, app: str | None, store: str) -> None:
    """Sign where the log of a SESSION stands, as JSON to keep outside of the store.

    `tertulia verify --anchor` then also finds truncation, deletion and rewriting up to it.
    """
    key = key_file.read_bytes()

    async def work(runtime: Runtime) -> dict[str, Any]:
        found = await places.existing(runtime, session, app)
        return await found.anchor(key)

    signed = places.run(store, work)
    if output is None:
        texts.print_json(signed)
    else:
        _write_new(output, (json.dumps(signed, indent=2) + "\n").encode(), 0o644)
        click.echo(f"wrote {output}", err=True)


@click.command()
@click.argument("file", type=existing_file)
def keygen(file: Path) -> None:
    """Make an Ed25519 key for anchors: FILE is private, FILE.pub is for those who check."""
    key = audit.generate_key()
    public = file.with_name(f"{file.name}.pub")
    _write_new(file, key, 0o600)
    _write_new(public, audit.public_key(key), 0o644)
    click.echo(f"wrote {file} (private: keep it outside of the store) and {public}", err=True)


def _write_new(file: Path, data: bytes, mode: int) -> None:
    """Write a file that must not be there yet."""
    try:
        handle = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode)
    except FileExistsError:
        raise InvalidInput(f"{file} exists and is left as it is; name another file") from None
    with os.fdopen(handle, "wb") as opened:
        opened.write(data)
