"""A server as one of the workers of a database: it answers the others, and says where it is."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from starlette.routing import BaseRoute, WebSocketRoute

from tertulia.cluster.frames import FRAME_LIMIT
from tertulia.errors import AgentError, ConfigurationError
from tertulia.runtime import Runtime
from tertulia.server import carrying
from tertulia.server.asgi import Receive, Scope, Send
from tertulia.server.hub import Hub
from tertulia.server.peers import PATH, Peers

if TYPE_CHECKING:
    from tertulia.cluster import Cluster
    from tertulia.cluster.channels import Channel
    from tertulia.server.socket import LiveSocket

_log = logging.getLogger("tertulia.server")
_ANYWHERE = ("", "0.0.0.0", "::", "[::]")  # noqa: S104 it is compared with, not bound to
_ADVERTISE = "TERTULIA_ADVERTISE"
_LOOK_AGAIN = 1.0
"""Seconds until it is looked again for a store that did not answer."""


class Membership:
    """What a server is to the other workers; without them nothing of it does anything.

    `url` is where they reach it, where that is known. Raises ConfigurationError.
    """

    path = PATH
    """Where other workers connect; they show a secret of their own, and no token."""

    def __init__(
        self,
        runtime: Runtime,
        hub: Hub,
        socket: Callable[[str | None], LiveSocket],
        url: str | None,
    ) -> None:
        self._runtime = runtime
        self._cluster = runtime.cluster
        self._hub = hub
        self._socket = socket
        self._said = _checked(url or os.environ.get(_ADVERTISE) or None)
        self._forget: Callable[[], None] | None = None
        self._looking: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection of another worker, as ASGI says."""
        pipe = None if self._cluster is None else self._cluster.http
        if pipe is None:
            await receive()  # the connect message
            await send({"type": "websocket.close"})
            return
        await Peers(pipe)(scope, receive, send)

    def frame_limit(self, limit: int) -> int:
        """How large frames are that the server takes in; `limit` is that of clients."""
        return limit if self._cluster is None else max(limit, FRAME_LIMIT)

    def routes(self) -> list[BaseRoute]:
        """The route at which other workers connect."""
        return [] if self._cluster is None else [WebSocketRoute(PATH, self)]

    async def join(self) -> None:
        """Answer other workers from now on, on this loop."""
        cluster = self._cluster
        if cluster is None:
            return
        self._hub.without_store = True
        self._looking = asyncio.get_running_loop().create_task(self._look(cluster))
        self._forget = cluster.on_lapse(self._hub.lapse)
        cluster.serve(carrying.KIND, self._carried)
        cluster.store.report_load(self._load)
        await cluster.start()
        if self._said is not None:
            await self._advertise(cluster, self._said)

    async def bound(self, host: str, port: int, *, secure: bool) -> None:
        """The server listens at an address: that is where others reach it, if it was not said
        otherwise."""
        cluster = self._cluster
        if cluster is None or self._said is not None:
            return
        if host in _ANYWHERE:
            _log.warning(
                "other workers reach this one over NATS only: set %s to a URL of this machine,"
                " such as http://10.0.0.5:%d",
                _ADVERTISE,
                port,
            )
            return
        name = f"[{host}]" if ":" in host else host
        await self._advertise(cluster, f"{'https' if secure else 'http'}://{name}:{port}")

    async def _look(self, cluster: Cluster) -> None:
        """Be ready once the store has answered."""
        while self._hub.without_store:
            try:
                await cluster.store.incarnation()
                self._hub.without_store = False
            except AgentError as error:
                _log.warning("the server is not ready: %s", error)
                await asyncio.sleep(_LOOK_AGAIN)

    def _load(self) -> dict[str, Any]:
        """What the others are told of this worker. On the thread of the store."""
        slots = self._runtime.slots
        return {
            "turns": slots.taken,
            "waiting": slots.waiting,
            "connections": self._hub.connections,
            "sessions": self._hub.held,
            "clients": len(self._runtime.client_sessions()),
        }

    async def _advertise(self, cluster: Cluster, url: str) -> None:
        try:
            await cluster.advertise(url)
        except AgentError as error:  # it is told to others when the store is there
            _log.warning("other workers do not know yet where this one is: %s", error)

    def leave(self) -> None:
        """Hear of nothing any more."""
        if self._forget is not None:
            self._forget()
            self._forget = None
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
        if self._cluster is not None:
            self._cluster.store.report_load(None)

    async def _carried(self, data: bytes, channel: Channel) -> None:
        """A connection that another worker carries here."""
        head = carrying.head_of(data)
        scope: dict[str, Any] = {"type": "websocket", "headers": [], "query_string": b""}
        try:
            await self._socket(head.user)(scope, *carrying.ends(head, channel))
        except OSError:
            return  # the worker that carries it is gone


def _checked(url: str | None) -> str | None:
    """A URL that others can reach. Raises ConfigurationError."""
    if url is None:
        return None
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigurationError(
            f"where other workers reach this one is a URL like http://10.0.0.5:8080, not {url!r}"
        )
    return url
