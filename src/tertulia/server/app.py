"""AgentApp: serves live sessions over WebSocket, and the HTTP API beside them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import uvicorn
from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.routing import BaseRoute

from tertulia import settings as configured
from tertulia.agents.runner import Runner
from tertulia.bus import Bus
from tertulia.doors import Outcome
from tertulia.errors import ConfigurationError, InvalidInput, Unauthorized
from tertulia.live.session import AgentSession, Settings, Setup
from tertulia.runtime import Runtime
from tertulia.server import api, given, pages
from tertulia.server.asgi import Receive, Scope, Send
from tertulia.server.auth import Authenticator, Principal, resolve, token_of
from tertulia.server.frames import LiveCodec
from tertulia.server.hub import Hub
from tertulia.server.membership import Membership
from tertulia.server.origins import host_allowed, is_loopback, origin_allowed
from tertulia.server.redaction import redact_logs
from tertulia.server.socket import LiveSocket
from tertulia.server.telephony import Telephony
from tertulia.swarm import Swarm
from tertulia.swarm.node import SwarmNode
from tertulia.sweeping import Sweeper
from tertulia.wire.frames import MAX_FRAME

_LOOK = 0.05
"""Seconds between two looks whether turns still run."""
_log = logging.getLogger("tertulia.server")


class AgentApp:
    """Serves a setup handler: for each client that connects it is called with an `AgentSession`.

    It is an ASGI application, and `run` serves it. `agent` alone, without a setup handler, is
    answered by one `AgentNode`; `agents` are also found by name in the HTTP API. `swarms` are
    added to the runtime, whose swarms the HTTP API serves; so are those of the `SwarmNode`s that
    the setup handler adds. One of them alone, without a setup handler and an agent, is answered by
    a `SwarmNode`.

    `store` is an address or a store, `bus` and `max_turns` are those of a `Runtime`; `runtime` is
    one of yours. `auth` is ``Token(…)``,
    ``JWT(…)`` or ``"off"``; None needs no token on loopback, and refuses to serve other addresses.
    `origins` are the web origins that may connect beside the server's own, `hosts` the names under
    which a server without authentication may be reached. `resume_for` is for how many seconds a
    session waits for a client that was lost, `finish_in` how many an answer has to finish at a
    shutdown, `heartbeat` the seconds between pings. `rate` is frames a second of one connection;
    `max_frame` bytes. `show_errors` says whether clients are told the texts of exceptions; None is
    only where no token is needed, on loopback. With `echo` the client's own events go back to it
    through the graph.

    On a store of many machines, servers of one database carry a client to the one that has its
    session. They reach each other over NATS, or over HTTP at the URL `advertise`, else
    ``TERTULIA_ADVERTISE``, else where `run` listens.
    Raises ConfigurationError and InvalidInput.
    """

    session_class: type[AgentSession] = AgentSession
    """What is made for each client."""
    _authenticator: Authenticator | None = None
    _host: str | None = None
    _resolved = False

    def __init__(  # noqa: PLR0913 its settings, all by name
        self,
        setup_handler: Setup | None = None,
        *,
        agent: Runner | None = None,
        agents: Mapping[str, Runner] | None = None,
        swarms: Sequence[Swarm] = (),
        store: Any = None,
        bus: Bus | str | None = None,
        max_turns: int | None = None,
        runtime: Runtime | None = None,
        auth: Authenticator | str | None = None,
        origins: Sequence[str] | str | None = None,
        hosts: Sequence[str] | str | None = None,
        telephony: Telephony | None = None,
        resume_for: float = 30.0,
        finish_in: float = 20.0,
        heartbeat: float = 20.0,
        max_connections: int = 10_000,
        max_frame: int = MAX_FRAME,
        rate: float | None = None,
        init_in: float = 10.0,
        echo: bool = False,
        show_errors: bool | None = None,
        path: str = "/ws",
        advertise: str | None = None,
    ) -> None:
        self._auth = auth
        self._show_errors = show_errors
        self._origins = given.texts(origins, "origins")
        self._hosts = given.texts(hosts, "hosts")
        self._telephony = telephony
        self._closing: Outcome[None] = Outcome()
        self.path = path
        """Where the WebSocket is."""
        self._heartbeat = given.positive(heartbeat, "heartbeat")
        self._finish_in = given.positive(finish_in, "finish_in", zero=True)
        self._limits = given.limits(max_connections, max_frame, rate, init_in)
        lives = Settings(resume_for=given.positive(resume_for, "resume_for", zero=True), echo=echo)
        self.hub = Hub(given.setup_of(setup_handler, agent, swarms), lives, self.session_class)
        """The live sessions of this process."""
        self._own_runtime = runtime is None
        self.runtime = _runtime(runtime, store, bus, max_turns)
        """Where sessions are kept."""
        for swarm in swarms:
            self.runtime.clients.add(swarm)
        self.membership = Membership(self.runtime, self.hub, self._carried, advertise)
        """What this server is to others of the same database."""
        self.app = Starlette(routes=self._routes(agent, agents), lifespan=self._lifespan)
        """The Starlette application of everything but the live WebSocket."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, as ASGI says."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif not self._reachable(scope):
            await pages.forbidden(scope, receive, send)
        elif scope["type"] == "websocket" and scope["path"] == self.path:
            await self._socket()(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def run(self, host: str = "127.0.0.1", port: int = 8080, **options: Any) -> None:
        """Serve until SIGINT or SIGTERM; `options` go to uvicorn.

        Raises ConfigurationError for an address beyond this machine without authentication.
        """
        self.bind(options.get("uds") or host)
        said: dict[str, Any] = {"host": host, "port": port, **self._uvicorn(), **options}
        with contextlib.suppress(KeyboardInterrupt):  # uvicorn says it again once it has ended
            _Server(uvicorn.Config(cast("Any", self), **said), self).run()

    def bind(self, host: str) -> None:
        """Say to which address the server is bound, before it serves. Raises ConfigurationError."""
        self._authenticator = resolve(self._auth, host)
        if self._telephony is not None:
            self._telephony.check(host, self._authenticator or self._auth)
        shown = self._authenticator is None and is_loopback(host)
        self.hub.show_errors(shown if self._show_errors is None else self._show_errors)
        self._host = host
        self._resolved = True
        redact_logs()

    def leave(self) -> None:
        """Tell whoever follows a log over HTTP to come back, to another process."""
        self._closing.set_result(None)

    def _uvicorn(self) -> dict[str, Any]:
        return {
            "ws": "tertulia.server.protocol:LiveProtocol",
            "ws_max_size": self.membership.frame_limit(self._limits.frame),
            "ws_ping_interval": self._heartbeat,
            "ws_ping_timeout": self._heartbeat,
            "ws_per_message_deflate": False,
            "access_log": False,
            "timeout_graceful_shutdown": 10,
            "log_level": os.environ.get("TERTULIA_LOG", "info"),
        }

    # -- who may connect

    def _reachable(self, scope: Scope) -> bool:
        """Whether the request may be for us: its origin, and without authentication its host."""
        if not self._resolved:
            self.bind("127.0.0.1")
            self._host = None  # somebody else's uvicorn serves us, wherever it is bound
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        if self._telephony is not None and self._telephony.serves(scope["path"]):
            return True  # signed instead
        if scope["path"] == self.membership.path:
            return True  # they show a secret
        if self._authenticator is None and not self._open_to(scope, headers.get(b"host")):
            return False
        if scope["type"] != "websocket":
            return True
        return origin_allowed(headers.get(b"origin"), headers.get(b"host"), self._origins)

    def _open_to(self, scope: Scope, host: str | None) -> bool:
        """Whether a connection without a token may come in."""
        off = self._auth == "off" or os.environ.get("TERTULIA_AUTH", "").lower() == "off"
        if off and self._hosts is None:
            return True
        if self._host is None and not off:
            client = scope.get("client")
            if client is not None and not is_loopback(client[0]):
                return False
        return host_allowed(host, self._hosts)

    async def _authenticate(self, connection: HTTPConnection) -> Principal | None:
        """Who sends a request to the HTTP API. Raises Unauthorized."""
        if self._authenticator is None:
            return None
        scope = connection.scope
        return self._authenticator.authenticate(token_of(scope["headers"], scope["query_string"]))

    async def is_authenticated(self, connection: HTTPConnection) -> bool:
        """Whether a request shows a valid token, or needs none."""
        try:
            await self._authenticate(connection)
        except Unauthorized:
            return False
        return True

    # -- what is served

    def _socket(self) -> LiveSocket:
        return LiveSocket(
            self.hub,
            self.runtime,
            LiveCodec(self._limits.frame),
            authenticator=self._authenticator,
            limits=self._limits,
        )

    def _carried(self, user: str | None) -> LiveSocket:
        """What serves a connection that another worker carries here, of somebody it knows."""
        return LiveSocket(
            self.hub,
            self.runtime,
            LiveCodec(self._limits.frame),
            authenticator=None,
            limits=self._limits,
            user_of=lambda _: user,
            carried=True,
        )

    def _routes(self, agent: Runner | None, agents: Mapping[str, Runner] | None) -> list[BaseRoute]:
        routes: list[BaseRoute] = [
            *pages.routes(self),
            *self.membership.routes(),
            *api.routes(
                self.runtime,
                agent=agent,
                agents=agents,
                authenticate=self._authenticate,
                closing=self._closing,
                deleted=self.hub.deleted,
            ),
        ]
        if self._telephony is not None:
            routes.extend(self._telephony.routes(self.hub, self.runtime, self._limits))
        return routes

    def _find_swarms(self) -> None:
        """Serve the swarms of the graph over HTTP too, before the first client comes."""
        try:
            for node in self.hub.nodes:
                if isinstance(node, SwarmNode):
                    self.runtime.clients.add(node.swarm)
        except ConfigurationError as error:
            self.hub.not_ready = str(error)
            _log.error("the setup handler is not ready: %s", error)

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncGenerator[None]:
        redact_logs()
        await self.hub.check()
        self._find_swarms()
        sweeper = Sweeper(self.runtime)
        try:
            await self.membership.join()
            sweeper.start()
            yield
        finally:
            self.leave()
            await sweeper.close()
            await asyncio.gather(self.hub.shut_down(self._finish_in), self._finish())
            self.membership.leave()
            if self._own_runtime:
                await self.runtime.close()

    async def _finish(self) -> None:
        """Let turns finish that other workers have handed on, for as long as that may take."""
        if self.runtime.cluster is None:
            return
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._finish_in
        while self.runtime.slots.taken and loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(_LOOK)


class _Server(uvicorn.Server):
    """uvicorn, which says at once when it was told to stop."""

    def __init__(self, config: uvicorn.Config, app: AgentApp) -> None:
        super().__init__(config)
        self._app = app

    def handle_exit(self, sig: int, frame: Any) -> None:
        """A signal came."""
        self._app.hub.stopping = True
        super().handle_exit(sig, frame)

    async def startup(self, sockets: list[Any] | None = None) -> None:
        """Listen, and say where."""
        await super().startup(sockets)
        if not self.should_exit and self.config.uds is None:
            bound = [each for server in self.servers for each in server.sockets]
            host, port = bound[0].getsockname()[:2]
            await self._app.membership.bound(host, port, secure=self.config.is_ssl)

    async def shutdown(self, sockets: list[Any] | None = None) -> None:
        """Let those go who follow a log, then everybody."""
        self._app.leave()
        await super().shutdown(sockets)


def _runtime(
    runtime: Runtime | None, store: Any, bus: Bus | str | None, max_turns: int | None
) -> Runtime:
    """The runtime that was given, or one of its own. Raises InvalidInput and ConfigurationError."""
    if runtime is None:
        address = configured.store() if store is None else store
        return Runtime(address, bus=bus, max_turns=max_turns)
    if (bus, max_turns) != (None, None):
        raise InvalidInput(
            "bus= and max_turns= belong to the runtime that you pass: give them to it"
        )
    return runtime
