"""The small pages of a server: how it is, what it counts, its contract, its JavaScript."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from tertulia.server.contract import asyncapi
from tertulia.server.hub import Hub
from tertulia.wire.events import event_types

if TYPE_CHECKING:
    from tertulia.server.app import AgentApp

STATIC = Path(__file__).parent / "static"
_HEADERS = {
    "content-security-policy": (
        "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
"""What browsers are told of the demo page: it loads nothing from elsewhere, and is in no frame."""
_GAUGES = {
    "connections_open": "WebSocket connections that are open",
    "sessions_active": "live sessions with a client",
    "sessions_held": "live sessions, those that wait for their client included",
}
_COUNTERS = {
    "connections": "connections since the start",
    "sessions": "live sessions since the start",
    "resumed": "times that a client came back to its session",
    "carried": "connections that were carried to another worker",
    "refused": "connections that were not let in",
    "bad_frames": "frames that could not be understood",
    "too_slow": "connections closed because the client did not read",
    "failed_setups": "times that the setup handler failed",
}


def routes(app: AgentApp) -> list[BaseRoute]:
    """The routes of these pages."""
    hub = app.hub

    async def status(request: Request) -> Response:
        return JSONResponse(
            {"status": "running", "ready": _why_not(hub) is None, "active_sessions": hub.active}
        )

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "ok", "active_sessions": hub.active})

    async def ready(request: Request) -> Response:
        why = _why_not(hub)
        if why is None:
            return JSONResponse({"status": "ready", "active_sessions": hub.active})
        return JSONResponse({"detail": {"status": "not_ready", "reason": why}}, status_code=503)

    async def metrics(request: Request) -> Response:
        if not await app.is_authenticated(request):
            return PlainTextResponse("show a token", status_code=401)
        return PlainTextResponse(_metrics(app), media_type="text/plain; version=0.0.4")

    async def contract(request: Request) -> Response:
        return JSONResponse(asyncapi(event_types().values(), address=app.path))

    async def graph(request: Request) -> Response:
        if not await app.is_authenticated(request):
            return PlainTextResponse("show a token", status_code=401)
        return JSONResponse(hub.graph)

    return [
        Route("/", status),
        Route("/health", health),
        Route("/ready", ready),
        Route("/metrics", metrics),
        Route("/asyncapi.json", contract),
        Route("/graph.json", graph),
        Route("/demo", _demo),
        Mount("/static", _Static(directory=STATIC)),
    ]


async def _demo(request: Request) -> Response:
    return RedirectResponse("static/demo.html")


class _Static(StaticFiles):
    """The files of the demo page and of the JavaScript client."""

    def file_response(self, *args: Any, **options: Any) -> Response:
        """A file, with what its browser shall mind."""
        response = super().file_response(*args, **options)
        response.headers.update(_HEADERS)
        return response


async def forbidden(scope: Any, receive: Any, send: Any) -> None:
    """Refuse a request that is not for this server."""
    said = (
        "This server may not be reached so: from another origin, under another name than its own, "
        "or from another machine without authentication. See auth=, origins=, hosts= of AgentApp."
    )
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 4403, "reason": "not allowed"})
        return
    await PlainTextResponse(said, status_code=403)(scope, receive, send)


def _why_not(hub: Hub) -> str | None:
    if hub.stopping:
        return "the server shuts down"
    if hub.without_store:
        return "the store has not answered yet; the log of the server says why"
    if hub.lapsed:
        return "the server has lost its store: its lease has run out"
    return hub.not_ready


def _metrics(app: AgentApp) -> str:
    """What is counted, in the text format of Prometheus."""
    hub = app.hub
    now = {
        "connections_open": hub.connections,
        "sessions_active": hub.active,
        "sessions_held": hub.held,
    }
    lines: list[str] = []
    for name, told in _GAUGES.items():
        lines += _metric(f"tertulia_{name}", "gauge", told, now[name])
    counts = msgspec.structs.asdict(hub.counts)
    for name, told in _COUNTERS.items():
        lines += _metric(f"tertulia_{name}_total", "counter", told, counts[name])
    stats = msgspec.to_builtins(app.runtime.stats())
    for name, value in stats.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            lines += _metric(f"tertulia_store_{name}", "gauge", f"{name} of the store", value)
    return "\n".join(lines) + "\n"


def _metric(name: str, kind: str, told: str, value: float) -> list[str]:
    return [f"# HELP {name} {told}", f"# TYPE {name} {kind}", f"{name} {value}"]
