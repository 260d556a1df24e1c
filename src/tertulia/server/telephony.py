"""Phone calls: the URLs that a carrier asks, and who may ask them.

A number's voice URL is asked when somebody calls, and answers with XML that connects the call to
the relay's WebSocket; another URL is asked when that has ended. All requests of a carrier are
signed with the account's auth token.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute

from tertulia.errors import ConfigurationError, InvalidInput
from tertulia.runtime import Runtime
from tertulia.server.asgi import Receive, Scope, Send
from tertulia.server.calls import CallSocket
from tertulia.server.hub import Hub
from tertulia.server.limits import Limits
from tertulia.server.origins import is_loopback
from tertulia.wire.events import SystemInit
from tertulia.wire.voice import hangup_response, signed, transfer_response, voice_response

MAX_FORM = 64 * 1024
"""Bytes of a form that a carrier may post."""
MOST_FIELDS = 1_000
SIGNATURE = "x-twilio-signature"

_log = logging.getLogger("tertulia.server")
_HOST = re.compile(r"[A-Za-z0-9_.:\[\]-]+")
_HEADERS = {"cache-control": "no-store", "x-content-type-options": "nosniff"}


class _HandedOff(msgspec.Struct, frozen=True):
    """What a call that was transferred tells whoever takes it over, as far as we need it."""

    transfer_call_number: str | None = None


class _Refused(Exception):
    """A request that is not answered; says why, with an HTTP status."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class Telephony:
    """Lets an `AgentApp` answer phone calls: ``AgentApp(setup, telephony=Telephony("wss://…"))``.

    `url` is where the carrier reaches the relay: ``wss://calls.example.com``, with a path where a
    proxy puts one before `path`. Without it the name that a request came for is taken, and no
    signature can be checked. `auth_token` is the account's; without it the environment's
    ``TERTULIA_TELEPHONY_TOKEN`` is. `path` is the voice URL here; the relay is below it.

    `welcome_greeting` is spoken by the carrier at once, and is the first message of the
    conversation. `parameters` become initial variables, `languages` those that a call may change
    to. `user` names the owner of a call's session from its `caller`; without it the session has
    none. All other `attributes` are the carrier's: see `tertulia.wire.voice.voice_response`.

    Raises ConfigurationError.
    """

    def __init__(  # noqa: PLR0913 its settings, all by name
        self,
        url: str | None = None,
        *,
        auth_token: str | None = None,
        path: str = "/voice",
        welcome_greeting: str | None = None,
        parameters: Mapping[str, str] | None = None,
        languages: Iterable[Mapping[str, Any]] = (),
        user: Callable[[Mapping[str, Any]], str | None] | None = None,
        **attributes: str | bool | float | None,
    ) -> None:
        self.path = _path(path)
        self.relay_path = f"{self.path}/relay"
        self.url = None if url is None else _relay_url(url, self.relay_path)
        self.welcome_greeting = welcome_greeting
        self._user = user
        self._token = auth_token or os.environ.get("TERTULIA_TELEPHONY_TOKEN") or None
        if self._token is not None and self.url is None:
            raise ConfigurationError(
                "a signature is over the URL as the carrier was given it: pass it too, as"
                ' Telephony("wss://calls.example.com", auth_token=…)'
            )
        self._parameters = dict(parameters or {})
        self._languages = [dict(each) for each in languages]
        self._attributes = {"welcome_greeting": welcome_greeting, **attributes}
        try:
            self._connecting("wss://calls.example.com", "https://calls.example.com")
        except (InvalidInput, TypeError) as error:
            raise ConfigurationError(f"Telephony cannot be so: {error}") from None

    def check(self, host: str, auth: object = None) -> None:
        """Whether a server bound to `host` may answer calls; `auth` is that of the app.

        Raises ConfigurationError where anybody could call without a signature, unless `auth` or
        ``TERTULIA_AUTH`` is "off"; then a warning is logged as "tertulia.server".
        """
        if self._token is not None:
            return
        if auth is not None and auth != "off":
            raise ConfigurationError(
                "clients of this server show a token, so phone calls must be signed: set"
                " TERTULIA_TELEPHONY_TOKEN to the auth token of your carrier's account"
            )
        if is_loopback(host):
            return
        if auth != "off" and os.environ.get("TERTULIA_AUTH", "").lower() != "off":
            raise ConfigurationError(
                f"{host!r} can be reached from other machines, so phone calls must be signed: set"
                " TERTULIA_TELEPHONY_TOKEN to the auth token of your carrier's account or pass"
                " Telephony(auth_token=…); or take every call with auth='off'"
            )
        _log.warning("PHONE CALLS ARE NOT CHECKED on %s: everybody can pretend to be a call", host)

    def routes(self, hub: Hub, runtime: Runtime, limits: Limits) -> list[BaseRoute]:
        """What an app serves to answer calls: the voice URL, the one for the end, and the relay."""

        async def relay(scope: Scope, receive: Receive, send: Send) -> None:
            call = CallSocket(
                hub,
                runtime,
                limits=limits,
                greeting=self.welcome_greeting,
                user_of=self.user_of,
            )
            await call(scope, receive, send)

        return [
            Route(self.path, self._voice, methods=["GET", "POST"]),
            Route(f"{self.path}/ended", self._ended, methods=["GET", "POST"]),
            WebSocketRoute(self.relay_path, _Guarded(self, relay)),
        ]

    def serves(self, path: str) -> bool:
        """Whether requests for a path are a carrier's and signed: then nothing else is asked."""
        ours = path in (self.path, f"{self.path}/ended", self.relay_path)
        return ours and self._token is not None

    def user_of(self, init: SystemInit) -> str | None:
        """Who owns the session of a call."""
        begun = init.session_context
        caller = begun.caller if begun is not None else None
        return None if self._user is None else self._user(caller or {})

    def is_signed(
        self, connection: HTTPConnection, url: str, form: Mapping[str, Sequence[str]] | None
    ) -> bool:
        """Whether a request for a URL is the carrier's; all are where there is no auth token."""
        if self._token is None:
            return True
        return signed(self._token, url, form, connection.headers.get(SIGNATURE))

    def __repr__(self) -> str:
        checked = "signed" if self._token is not None else "not checked"
        return f"Telephony({self.url!r}, path={self.path!r}, {checked})"

    # -- what is asked

    async def _voice(self, request: Request) -> Response:
        """Somebody calls: connect them."""
        try:
            relay, base = self._urls(request)
            await self._asked(request, base)
        except _Refused as refused:
            return _no(request, refused)
        return _xml(self._connecting(relay, f"{base}/ended"))

    async def _ended(self, request: Request) -> Response:
        """The relay has ended: hand the call on, if that is what it was ended for."""
        try:
            _, base = self._urls(request)
            number = _transferred_to(await self._asked(request, f"{base}/ended"))
        except _Refused as refused:
            return _no(request, refused)
        try:
            return _xml(hangup_response() if number is None else transfer_response(number))
        except InvalidInput as error:
            _log.error("a call was not transferred: %s", error)
            return _xml(hangup_response())

    async def _asked(self, request: Request, url: str) -> Mapping[str, Sequence[str]]:
        """The fields of a carrier's request. Raises _Refused."""
        query = request.scope["query_string"]
        posted = None if request.method == "GET" else _fields(await _body(request))
        full = f"{url}?{query.decode('latin-1')}" if query else url
        if not self.is_signed(request, full, posted):
            raise _Refused(
                403,
                "the signature is missing or wrong: is the auth token the account's, and the URL"
                " the one that the carrier has?",
            )
        return _fields(query) if posted is None else posted

    def _connecting(self, relay: str, action: str) -> str:
        said: dict[str, Any] = {"action": action, **self._attributes}
        return voice_response(relay, parameters=self._parameters, languages=self._languages, **said)

    def _urls(self, request: Request) -> tuple[str, str]:
        """The relay's URL and the voice URL, as the carrier knows them."""
        relay = self.url
        if relay is None:
            host = request.headers.get("host", "")
            if not _HOST.fullmatch(host):
                raise _Refused(400, "the host of the request is missing or no name")
            scheme = "ws" if is_loopback(re.sub(r":\d*\Z", "", host)) else "wss"
            relay = f"{scheme}://{host}{self.relay_path}"
        return relay, f"http{relay.removeprefix('ws').removesuffix('/relay')}"


class _Guarded:
    """The relay, for handshakes that are signed; others are refused with a 403."""

    def __init__(
        self, telephony: Telephony, relay: Callable[[Scope, Receive, Send], Awaitable[None]]
    ) -> None:
        self._telephony = telephony
        self._relay = relay

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one handshake."""
        telephony = self._telephony
        if telephony.is_signed(HTTPConnection(scope), telephony.url or "", None):
            await self._relay(scope, receive, send)
            return
        _log.warning("a phone call with a wrong signature was refused")
        await receive()  # the connect message
        await send({"type": "websocket.close"})


def _path(path: str) -> str:
    if not path.startswith("/") or path.endswith("/") or not path.isprintable():
        raise ConfigurationError(f"path is {path!r}; it begins with a slash, as /voice")
    return path


def _relay_url(url: str, relay_path: str) -> str:
    """The full URL of the relay."""
    parts = urlsplit(url)
    if parts.scheme not in ("wss", "ws") or not parts.netloc or parts.query or parts.fragment:
        raise ConfigurationError(
            f"the URL of phone calls is {url!r}; it is one like wss://calls.example.com"
        )
    plain = url.rstrip("/")
    return plain if plain.endswith("/relay") else f"{plain}{relay_path}"


async def _body(request: Request) -> bytes:
    data = b""
    async for piece in request.stream():
        data += piece
        if len(data) > MAX_FORM:
            raise _Refused(413, "the form is too large")
    return data


def _fields(form: bytes) -> Mapping[str, Sequence[str]]:
    text = form.decode("utf-8", "replace")
    try:
        return parse_qs(text, keep_blank_values=True, max_num_fields=MOST_FIELDS)
    except ValueError:
        raise _Refused(413, "the form has too many fields") from None


def _transferred_to(form: Mapping[str, Sequence[str]]) -> str | None:
    """The number that the call goes to, where its end was a transfer."""
    try:
        told = msgspec.json.decode(form.get("HandoffData", [""])[0], type=_HandedOff)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    return told.transfer_call_number


def _no(request: Request, refused: _Refused) -> Response:
    _log.warning("a carrier's request to %s was refused: %s", request.url.path, refused)
    return PlainTextResponse(str(refused), refused.status, _HEADERS)


def _xml(text: str) -> Response:
    return Response(text, 200, _HEADERS, media_type="text/xml")
