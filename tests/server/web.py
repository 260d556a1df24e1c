"""A real server on loopback, a plain client for it, and a checker of JSON Schema."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, cast

import uvicorn
from starlette.applications import Starlette
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

JSON = {"content-type": "application/json"}


class Answered(NamedTuple):
    """An answer: its status, its headers in small letters, and its JSON, else its text."""

    status: int
    headers: dict[str, str]
    data: Any


class Told(NamedTuple):
    """One server-sent event; comments have no type."""

    type: str
    data: Any
    id: str | None
    comment: str | None = None


class Listening:
    """A stream of server-sent events, read one by one."""

    def __init__(self, connection: http.client.HTTPConnection) -> None:
        self._connection = connection
        self._response = connection.getresponse()
        self.status = self._response.status
        self.headers = {name.lower(): value for name, value in self._response.getheaders()}

    async def next(self) -> Told | None:
        """The next event or comment; None at the end."""
        return await asyncio.to_thread(self._next)

    async def skip_to(self, kind: str) -> Told:
        """The next event of a type."""
        while (told := await self.next()) is not None:
            if told.type == kind:
                return told
        raise AssertionError(f"the stream ended before {kind}")

    async def rest(self) -> list[Told]:
        """All events to the end, without comments."""
        found: list[Told] = []
        while (told := await self.next()) is not None:
            if told.comment is None:
                found.append(told)
        return found

    def hang_up(self) -> None:
        """Close the connection, in the middle of what is being sent."""
        self._response.close()
        self._connection.close()

    def _next(self) -> Told | None:
        fields: dict[str, str] = {}
        while True:
            line = self._response.readline().decode()
            if line == "":
                self.hang_up()
                return None
            if line == "\n":
                if fields.keys() <= {"retry"}:
                    fields.clear()
                    continue
                break
            name, _, value = line.rstrip("\n").partition(": ")
            fields[name or "comment"] = value.strip()
        data = json.loads(fields["data"]) if "data" in fields else None
        return Told(fields.get("event", ""), data, fields.get("id"), fields.get("comment"))


class Client:
    """Asks a server, as somebody."""

    def __init__(self, port: int, user: str | None = None) -> None:
        self._port = port
        self._user = user

    def known_as(self, user: str) -> Client:
        """A client of the same server that is somebody else."""
        return Client(self._port, user)

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        raw: bytes | None = None,
    ) -> Answered:
        """The answer to a request; `raw` is a body as it is."""
        return await asyncio.to_thread(self._ask, method, path, body, headers, raw)

    async def get(self, path: str) -> Any:
        """The JSON of an answer that has to be good."""
        answered = await self.ask("GET", path)
        assert answered.status == 200, answered
        return answered.data

    async def post(self, path: str, body: Any = None, **headers: str) -> Any:
        """The JSON of an answer that has to be good."""
        answered = await self.ask("POST", path, {} if body is None else body, headers)
        assert answered.status in (200, 201), answered
        return answered.data

    async def send(self, method: str, path: str, body: Any) -> http.client.HTTPConnection:
        """The connection over which a request was sent whose answer nobody waits for."""
        return await asyncio.to_thread(self._begin, method, path, body, None, None)

    async def listen(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Listening:
        """A stream."""
        return await asyncio.to_thread(
            lambda: Listening(self._begin(method, path, body, headers, None))
        )

    def _begin(
        self,
        method: str,
        path: str,
        body: Any,
        headers: Mapping[str, str] | None,
        raw: bytes | None,
    ) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
        content = json.dumps(body).encode() if raw is None and body is not None else raw
        said = {**(JSON if method in ("POST", "PUT") else {}), **(headers or {})}
        if self._user is not None:
            said["authorization"] = f"Bearer {self._user}"
        connection.request(method, path, content, said)
        return connection

    def _ask(
        self,
        method: str,
        path: str,
        body: Any,
        headers: Mapping[str, str] | None,
        raw: bytes | None,
    ) -> Answered:
        connection = self._begin(method, path, body, headers, raw)
        try:
            response = connection.getresponse()
            text = response.read().decode()
        finally:
            connection.close()
        kinds = {name.lower(): value for name, value in response.getheaders()}
        plain = kinds.get("content-type") != "application/json"
        return Answered(response.status, kinds, text if plain else json.loads(text))


class _Server(uvicorn.Server):
    """One that leaves the signals of the tests alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


@contextlib.asynccontextmanager
async def serving(
    routes: Sequence[BaseRoute] | ASGIApp, *, lifespan: Literal["on", "off"] = "off"
) -> AsyncGenerator[Client]:
    """A server of some routes on a free port, and a client for it."""
    app = routes if callable(routes) else Starlette(routes=routes)
    config = uvicorn.Config(app, lifespan=lifespan, ws="none", log_config=None, access_log=False)
    config.timeout_graceful_shutdown = 5
    server = _Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield Client(port)
    finally:
        server.should_exit = True
        await task


def misfit(value: Any, schema: Mapping[str, Any], root: Mapping[str, Any]) -> str | None:
    """What in a value does not fit its schema; None where all does."""
    if "$ref" in schema:
        place: Any = root
        for name in schema["$ref"].removeprefix("#/").split("/"):
            place = place[name]
        schema = place
    if "anyOf" in schema:
        found = [misfit(value, each, root) for each in schema["anyOf"]]
        return None if None in found else f"{value!r}: {found}"
    if "enum" in schema and value not in schema["enum"]:
        return f"{value!r} is none of {schema['enum']}"
    if "type" in schema and not _is_a(value, schema["type"]):
        return f"{value!r} is no {schema['type']}"
    if isinstance(value, dict):
        return _misfit_of_object(cast("dict[str, Any]", value), schema, root)
    items = cast("list[Any]", value) if isinstance(value, list) else ()
    faults = (misfit(each, schema.get("items", {}), root) for each in items)
    return next((fault for fault in faults if fault), None)


def _misfit_of_object(
    value: dict[str, Any], schema: Mapping[str, Any], root: Mapping[str, Any]
) -> str | None:
    properties = schema.get("properties")
    missing = set(schema.get("required", ())) - value.keys()
    if missing:
        return f"{sorted(missing)} are missing in {value!r}"
    if properties is None:
        return None
    unknown = value.keys() - properties.keys()
    if unknown:
        return f"{sorted(unknown)} are not in the schema"
    faults = (misfit(each, properties[name], root) for name, each in value.items())
    return next((fault for fault in faults if fault), None)


def _is_a(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    kinds: dict[str, Any] = {
        "object": dict,
        "array": list,
        "string": str,
        "integer": int,
        "number": (int, float),
        "null": type(None),
    }
    return isinstance(value, kinds.get(kind, ()))
