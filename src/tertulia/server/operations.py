"""The operations of the HTTP API: what one takes and gives, and how a request is carried out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, cast
from urllib.parse import quote

import msgspec
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tertulia.agents.runner import Runner
from tertulia.bus.base import EVERYONE
from tertulia.doors import Outcome
from tertulia.errors import InvalidInput, Unauthorized
from tertulia.runtime import Runtime
from tertulia.server import problems
from tertulia.server.auth import NOT_A_USER
from tertulia.server.problems import Refused
from tertulia.server.sse import EventStream
from tertulia.session import Session

MAX_BODY = 1_000_000
"""Bytes that the body of a request may have."""
SLASH = "\udc2f"
"""Stands for the slash of an id, where a path is parted into its ids: no text has it."""
_HEADERS = {"cache-control": "no-store", "x-content-type-options": "nosniff"}


class Identity(Protocol):
    """Who asks: somebody with a name."""

    @property
    def user(self) -> str | None:
        """The user that owns the sessions which are made; None for trusted code."""
        ...


Authenticate = Callable[[HTTPConnection], Awaitable[Identity | None]]
"""Says who asks; None where everybody is trusted. Raises Unauthorized."""


def _nobody(session: Session) -> None:
    """Nobody wants to know."""


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """What all operations work on."""

    runtime: Runtime
    agents: Mapping[str, Runner]
    """Those that can be asked for by name, and are found where they have the floor."""
    agent: Runner | None
    """Who answers where nobody was asked for and nobody has the floor."""
    authenticate: Authenticate | None
    closing: Outcome[None] | None
    document: bytes
    deleted: Callable[[Session], None] = _nobody
    """Told of each session that is gone."""


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One request, understood: `query` and `body` are of the types that its operation names."""

    service: Service
    user: str | None
    """Who asks; None for trusted code, and where nobody is asked."""
    path: Mapping[str, str]
    query: Any
    body: Any
    headers: Mapping[str, str]
    place: tuple[str, str]
    """The method and the route, for the log."""


class Query(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every operation takes in its query."""

    token: str | None = None
    """Who asks, where no header can be set; as `Authorization: Bearer` otherwise."""


class Made(msgspec.Struct, frozen=True):
    """An answer that tells of something new, and where that is."""

    answer: Any
    location: str


Handler = Callable[[Call], Awaitable[Any]]
"""Carries out a call; gives the answer, a `Made`, a `Response` or an `EventStream`."""


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that can be asked: dispatched, checked and documented from here."""

    name: str
    method: str
    path: str
    summary: str
    handle: Handler
    query: type[Query] = Query
    body: type[msgspec.Struct] | None = None
    answer: Any = None
    """The type of the answer; None where it only streams."""
    streams: tuple[Any, ...] = ()
    """The types of the data of its server-sent events, where it has them."""
    status: int = 200
    public: bool = False
    """Whether nobody is asked who they are."""
    in_swarm: str | None = None
    """What somebody with a name does instead, where the session is a conversation with a swarm;
    None where this is open to them there too."""


class Endpoint:
    """All that can be asked under one path, as an ASGI application."""

    def __init__(self, service: Service, path: str, operations: Mapping[str, Operation]) -> None:
        self._service = service
        self._path = path
        self._operations = operations

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; what goes wrong is told in the answer."""
        request = Request(scope, receive)
        try:
            answer = await self._carry_out(request)
        except ClientDisconnect:
            return
        except Exception as error:
            answer = problems.answer(error, request.method, self._path)
        await answer(scope, receive, send)

    async def _carry_out(self, request: Request) -> Response | EventStream:
        operation = self._operations.get(request.method)
        if operation is None:
            allowed = ", ".join(sorted(self._operations))
            raise Refused(
                405, "MethodNotAllowed", f"use {allowed} here", headers={"allow": allowed}
            )
        call = await self._understand(operation, request)
        _check_way(operation, call)
        given = await operation.handle(call)
        if isinstance(given, Response | EventStream):
            return given
        headers = dict(_HEADERS)
        if isinstance(given, Made):
            headers["location"], given = given.location, given.answer
        content = msgspec.json.encode(given)
        return Response(content, operation.status, headers, media_type="application/json")

    async def _understand(self, operation: Operation, request: Request) -> Call:
        """The call that a request makes. Raises what is wrong with it, who asks first."""
        authenticate = None if operation.public else self._service.authenticate
        who = None if authenticate is None else await authenticate(request)
        if who is not None and who.user == EVERYONE:
            raise Unauthorized(NOT_A_USER)
        query = _checked(_query_of(request), operation.query, "query parameter", strict=False)
        body = None
        if operation.body is not None:
            body = _checked(await _body_of(request), operation.body, "field", strict=True)
        return Call(
            service=self._service,
            user=None if who is None else who.user,
            path={key: value.replace(SLASH, "/") for key, value in request.path_params.items()},
            query=query,
            body=body,
            headers=request.headers,
            place=(request.method, self._path),
        )


def _check_way(operation: Operation, call: Call) -> None:
    """Raise Refused for somebody with a name who goes around the policies of a swarm.

    All sessions in the app of a swarm are conversations with it, whether they exist or not.
    """
    if operation.in_swarm is None or call.user is None:
        return
    app = getattr(call.query, "app_name", None) or getattr(call.body, "app_name", None)
    for swarm in call.service.runtime.clients.swarms.values():
        if swarm.app_name == app:
            client = f"/v1/swarms/{quote(swarm.name, safe='')}/clients/{quote(call.user, safe='')}"
            instead = operation.in_swarm.replace("{client}", client)
            raise Refused(403, "Forbidden", f"app {app!r} is that of a swarm: {instead}")


async def nowhere(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers for paths that are none, as an ASGI application."""
    error = Refused(404, "NotFound", "there is nothing here; GET /openapi.json lists what there is")
    await problems.answer(error, str(scope["method"]), "")(scope, receive, send)


def _query_of(request: Request) -> dict[str, str]:
    given: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name in given:
            raise InvalidInput(f"the query parameter {name!r} is given twice")
        given[name] = value
    return given


async def _body_of(request: Request) -> Any:
    """The JSON in the body of a request; none at all is an empty object. Raises Refused."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refused(
            415, "UnsupportedMediaType", "send JSON, with the header content-type: application/json"
        )
    too_large = Refused(413, "BodyTooLarge", f"a body may have {MAX_BODY:,} bytes")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length[:20]) > MAX_BODY:
        raise too_large
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > MAX_BODY:
            raise too_large
    try:
        return msgspec.json.decode(data) if data else {}
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        said = "it is nested too deep" if isinstance(error, RecursionError) else str(error)
        raise Refused(400, "MalformedBody", f"the body is no JSON: {said}") from None


def _checked(given: Any, kind: type[msgspec.Struct], what: str, *, strict: bool) -> Any:
    """What was given, as the type that is wanted. Raises InvalidInput."""
    if not isinstance(given, dict):
        raise InvalidInput("the body is a JSON object; see GET /openapi.json")
    fields = kind.__struct_encode_fields__
    unknown = sorted(set(cast("dict[str, Any]", given)) - set(fields))
    if unknown:
        raise InvalidInput(f"unknown {what}s {unknown}; known are {', '.join(fields) or 'none'}")
    try:
        return msgspec.convert(given, kind, strict=strict)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"a {what} is wrong: {error}") from None
