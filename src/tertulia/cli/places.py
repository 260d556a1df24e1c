"""Which store a command works on, and how it gets there."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import quote

import click

from tertulia.cli.progress import Bar, counted
from tertulia.errors import NotAStore, SessionNotFound, StoreUnavailable, UsageError
from tertulia.runtime import Runtime
from tertulia.session import Session
from tertulia.stores import MemoryStore, SQLiteStore, open_store
from tertulia.stores.base import LogStore, SessionRow

T = TypeVar("T")
Work = Callable[[Runtime], Awaitable[T]]


def default_store() -> str:
    """The store in the user's data folder."""
    return f"sqlite:///{quote(str(data_folder() / 'tertulia' / 'tertulia.db'))}"


def implied_store() -> str:
    """The store of a command that names none."""
    return os.environ.get("TERTULIA_STORE") or default_store()


def data_folder() -> Path:
    """Where this system keeps what programs remember for a user."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support"
    named = Path(os.environ.get("XDG_DATA_HOME") or "")
    return named if named.is_absolute() else Path.home() / ".local" / "share"


def _chosen(ctx: click.Context, _param: click.Parameter, value: str | None) -> str:
    of_group = ctx.find_root().params.get("store")
    return value or of_group or implied_store()


store_option = click.option(
    "--store",
    metavar="URL",
    callback=_chosen,
    help="The store, as in sqlite:///relative.db, sqlite:////absolute.db or "
    "postgresql://user@host/database.",
)
app_option = click.option(
    "--app",
    metavar="NAME",
    help="The app of the session; without it the default app, else the only one that has the id.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def run(url: str, work: Work[T], *, bar: Bar | None = None, quiet: bool = False) -> T:
    """Do something with the runtime of a store; it says first which, unless `quiet`."""
    if not quiet:
        click.echo(f"store: {shown(url)}", err=True)

    async def inside() -> T:
        async with opened(url, bar) as runtime:
            return await work(runtime)

    try:
        return asyncio.run(inside())
    finally:
        if bar is not None:
            bar.close()


def shown(url: str) -> str:
    """An address as it may be printed: without a password."""
    return open_store(url).url if "@" in url else url


@asynccontextmanager
async def opened(url: str, bar: Bar | None) -> AsyncGenerator[Runtime]:
    """The runtime of a store that is there."""
    store = found(url)
    async with Runtime(store if bar is None else counted(store, bar)) as runtime:
        yield runtime


def found(url: str, *, make: bool = False) -> LogStore:
    """The store of an address. Raises StoreUnavailable, NotAStore and UsageError."""
    store = open_store(url)
    if isinstance(store, MemoryStore) and not make:
        raise UsageError("memory: is empty in every new process; name a store that stays")
    if isinstance(store, SQLiteStore):
        file = Path(store.path)
        if make:
            _make_folder(url, file)
        else:
            check_file(file)
    elif not make and hasattr(store, "make_tables"):
        cast("Any", store).make_tables = False
    return store


def is_database(url: str) -> bool:
    """Whether an address is that of a PostgreSQL database."""
    return url.partition(":")[0] in {"postgresql", "postgres"}


def check_file(file: Path) -> None:
    """Raise where a file cannot be a store, before anything is opened or made."""
    if not file.exists():
        raise StoreUnavailable(f"there is no store at {file}; `tertulia chat` makes one")
    if file.is_dir():
        raise NotAStore(f"{file} is a folder; name the file of a store in it")
    if file.stat().st_size == 0:
        raise NotAStore(f"{file} is empty, so there is nothing to read in it; name another file")


def _make_folder(url: str, file: Path) -> None:
    """The data folder of the user is ours to make; the folder of a named file is not."""
    if url == default_store():
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)


async def existing(runtime: Runtime, session_id: str, app: str | None) -> Session:
    """A session that exists. Raises SessionNotFound, and UsageError if several apps have it."""
    row = await row_of(runtime, session_id, app)
    return runtime.session(session_id, app_name=row.app)


async def row_of(runtime: Runtime, session_id: str, app: str | None) -> SessionRow:
    """The row of a session, looked for in every app where none is named."""
    row = await runtime.store.find(app, session_id)
    if row is not None:
        return row
    rows = [] if app is not None else await _in_every_app(runtime, session_id)
    if len(rows) > 1:
        names = ", ".join(str(row.app) for row in rows)
        raise UsageError(f"several apps have a session {session_id!r}; say --app, one of: {names}")
    if not rows:
        where = "" if app is None else f" in the app {app!r}"
        raise SessionNotFound(
            f"there is no session {session_id!r}{where}; `tertulia sessions` lists what there is",
            session_id=session_id,
        )
    return rows[0]


async def _in_every_app(runtime: Runtime, session_id: str) -> list[SessionRow]:
    return [row async for row in every_row(runtime) if row.id == session_id]


async def every_row(runtime: Runtime, app: str | None = None) -> AsyncIterator[SessionRow]:
    """All sessions of an app (None: of all apps), in the order of their creation."""
    after, size = 0, 500
    while True:
        page = await runtime.store.rows(app=app, any_app=app is None, after=after, limit=size)
        for row in page:
            yield row
        if len(page) < size:
            return
        after = page[-1].key


def confirm(deed: str, yes: bool) -> None:
    """Let the user agree. Raises UsageError where nobody can be asked, or says no.

    Not for coroutines: under a running loop Ctrl-C would wait for the answer.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"this would {deed}; say --yes to do it without being asked")
    if not click.confirm(f"This would {deed}. Go on?", err=True):
        raise UsageError("nothing was done")
