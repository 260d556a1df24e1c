"""`tertulia serve`: serve live sessions from a file or module."""

from __future__ import annotations

import importlib
import importlib.util
import os
import socket
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import click

from tertulia.agents.runner import Runner
from tertulia.cli import places
from tertulia.errors import UsageError


@click.command()
@click.argument("target", metavar="APP.PY[:NAME]")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=8080,
    show_default=True,
    help="The port; 0 is any that is free.",
)
@places.store_option
def serve(target: str, host: str, port: int, store: str) -> None:
    """Serve live sessions over WebSocket, with the HTTP API beside them.

    APP.PY is a Python file, or a module as in shop.live; NAME is an AgentApp in it, a setup
    handler, or an agent. Without NAME it is what is called app, else setup, else agent. A server
    that other machines can reach needs a token: see TERTULIA_TOKEN and AgentApp(auth=…).
    """
    places.found(store, make=True)
    os.environ["TERTULIA_STORE"] = store  # also for what the file itself opens
    app = _app(target)
    _check_free(host, port)
    click.echo(f"store: {app.runtime.store.url}", err=True)
    app.run(host=host, port=port)


def _check_free(host: str, port: int) -> None:
    """Raises UsageError where nothing can be served at an address."""
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family) as tried:
            if os.name == "posix":  # as servers do there: a connection that just ended is no matter
                tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(address)
    except OSError as error:
        raise UsageError(
            f"nothing can be served at {host} port {port}: {error.strerror}; say another --port"
            " (0 is any that is free) or --host"
        ) from error


def _app(target: str) -> Any:
    """The app in a file or module. Raises UsageError."""
    from tertulia.server import AgentApp

    place, _, name = target.rpartition(":") if ":" in target else (target, "", "")
    found = _found(_module(place), name, place)
    if isinstance(found, AgentApp):
        return found
    if isinstance(found, Runner):
        return AgentApp(agent=found)
    return AgentApp(found)


def _found(module: ModuleType, name: str, place: str) -> Any:
    if name:
        if not hasattr(module, name):
            raise UsageError(f"{place} has no {name!r}; say another NAME in {place}:NAME")
        return getattr(module, name)
    for usual in ("app", "setup", "agent"):
        if hasattr(module, usual):
            return getattr(module, usual)
    raise UsageError(f"{place} has no app, setup or agent; say which in {place}:NAME")


def _module(place: str) -> ModuleType:
    """A module by the path of its file, or by its name."""
    path = Path(place)
    if path.suffix != ".py" and not path.exists():
        sys.path.insert(0, str(Path.cwd()))
        try:
            return importlib.import_module(place)
        except ModuleNotFoundError as error:
            if error.name and place.startswith(error.name):
                raise UsageError(f"there is no file or module {place!r}") from error
            raise
    if not path.is_file():
        raise UsageError(f"there is no file {place!r}")
    sys.path.insert(0, str(path.parent.resolve()))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{place!r} cannot be loaded as Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module
