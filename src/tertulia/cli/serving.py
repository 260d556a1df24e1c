"""`tertulia serve`: serve live sessions from a file or module."""

from __future__ import annotations

import os
import socket
from typing import Any

import click

from tertulia.agents.runner import Runner
from tertulia.cli import loading, places
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

    found = loading.loaded(target, ("app", "setup", "agent"))
    if isinstance(found, AgentApp):
        return found
    if isinstance(found, Runner):
        return AgentApp(agent=found)
    return AgentApp(found)
