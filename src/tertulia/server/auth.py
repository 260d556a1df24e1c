"""Who may connect: static tokens, where a token is looked for, and what a server must have."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
from collections.abc import Iterable, Mapping
from typing import Any, Protocol, final, runtime_checkable
from urllib.parse import parse_qsl

import msgspec

from tertulia.bus.base import EVERYONE
from tertulia.errors import ConfigurationError, InvalidInput, Unauthorized
from tertulia.server.origins import is_loopback
from tertulia.values import identifier

MIN_TOKEN = 8
MAX_TOKEN = 8_192
SHARED_USER = "shared"

_logger = logging.getLogger("tertulia.server")


NOT_A_USER = "nobody can be named '*', which stands for everybody; ask for another name"


class Principal(msgspec.Struct, frozen=True):
    """Who has connected; `user` owns the sessions that are opened, None is trusted code.

    Raises Unauthorized for the user ``*``.
    """

    user: str | None

    def __post_init__(self) -> None:
        if self.user == EVERYONE:
            raise Unauthorized(NOT_A_USER)


@runtime_checkable
class Authenticator(Protocol):
    """Decides who somebody is by the token that they show; must not wait for anything."""

    def authenticate(self, token: str | None) -> Principal:
        """Who shows this token. Raises Unauthorized, with a text that has no token in it."""
        ...


@final
class Token:
    """Static tokens: who shows one of them is let in, as the user that it belongs to.

    `Token("…")` is one token for all, who then are one user, named "shared" or as `user=` says;
    `Token({"…": "alice", "…": "bob"})` has one for each user. `trusted` is one more, for code that
    may do everything, such as another server of yours. Only digests of them are kept. A
    token has at least 8 characters, all of them visible ASCII, so that it can be sent in a header.

    Raises ConfigurationError for a token that is empty, too short or cannot be sent.
    """

    __slots__ = ("_users",)

    def __init__(
        self, token: str | Mapping[str, str], *, user: str | None = None, trusted: str | None = None
    ) -> None:
        if isinstance(token, Mapping):
            if user is not None:
                raise ConfigurationError("leave out user=: a mapping names the user of each token")
            users = token
        else:
            users = {token: SHARED_USER if user is None else user}
        if not users:
            raise ConfigurationError("no token was given; write Token({'…': 'alice'})")
        if trusted in users:
            raise ConfigurationError("the trusted token is that of a user too; make another one")
        named = tuple((_digest(_checked(each)), _named(who)) for each, who in users.items())
        ours = () if trusted is None else ((_digest(_checked(trusted)), None),)
        self._users: tuple[tuple[bytes, str | None], ...] = (*named, *ours)

    def authenticate(self, token: str | None) -> Principal:
        """The user of this token. Raises Unauthorized."""
        shown = _digest(presented(token))
        found = [user for digest, user in self._users if hmac.compare_digest(digest, shown)]
        if not found:
            raise Unauthorized("the token is not accepted; ask the operator of this server for one")
        return Principal(found[0])

    def __repr__(self) -> str:
        return f"Token(<{len(self._users)} hidden>)"


def presented(token: str | None) -> str:
    """A token that somebody shows, of a size that can be one. Raises Unauthorized."""
    if not token:
        raise Unauthorized(
            "a token is needed; send it as 'Authorization: Bearer …', as '?token=…',"
            " or as 'token' of system.init"
        )
    if len(token) > MAX_TOKEN:
        raise Unauthorized(f"the token is longer than {MAX_TOKEN} characters")
    return token


def resolve(auth: Authenticator | str | None, host: str) -> Authenticator | None:
    """Who decides about those who connect to a server bound to `host`; None lets all in.

    `auth` is a `Token`, a `JWT` or another `Authenticator`, "off", or None. With None the
    environment decides: `TERTULIA_TOKEN` is a static token, `TERTULIA_AUTH=off` is "off". If it
    is silent too, nobody needs a token on loopback, and any other address is refused.

    Raises ConfigurationError where a token is missing or what was given is not understood. Logs
    a warning as "tertulia.server" where anybody is let in from elsewhere.
    """
    chosen = _from_environment() if auth is None else auth
    if isinstance(chosen, Authenticator):
        return chosen
    if chosen is not None and chosen != "off":
        raise ConfigurationError(
            "auth= is Token(…), JWT(…), 'off' or None; a token of yours goes in as Token('…')"
        )
    if is_loopback(host):
        return None
    if chosen is None:
        raise ConfigurationError(
            f"{host!r} can be reached from other machines, so those who connect need a token: set"
            " TERTULIA_TOKEN or pass auth=Token(…) or auth=JWT(…); or bind to 127.0.0.1; or let"
            " everybody in with auth='off' or TERTULIA_AUTH=off"
        )
    _logger.warning(
        "AUTHENTICATION IS OFF on %s: everybody who can reach this address can read and write"
        " all sessions; set TERTULIA_TOKEN to end this",
        host,
    )
    return None


def token_of(headers: Iterable[tuple[bytes, bytes]], query: bytes) -> str | None:
    """The token that a request shows: `Authorization: Bearer …`, else `?token=…`, else None.

    `headers` and `query` are the `headers` and `query_string` of an ASGI scope. Another scheme
    than Bearer is passed over, and of two tokens in one place the first is taken.
    """
    for name, value in headers:
        words = value.split() if name.lower() == b"authorization" else []
        if len(words) == 2 and words[0].lower() == b"bearer":
            return words[1].decode("latin-1")
    pairs = parse_qsl(query.decode("latin-1"))
    return next((value for key, value in pairs if key == "token"), None)


def _from_environment() -> Authenticator | str | None:
    """What the environment says. Raises ConfigurationError where it contradicts itself."""
    switch, token = os.environ.get("TERTULIA_AUTH"), os.environ.get("TERTULIA_TOKEN")
    if switch and switch.lower() != "off":
        raise ConfigurationError(
            "TERTULIA_AUTH may only be 'off'; a token of yours goes into TERTULIA_TOKEN"
        )
    if switch and token:
        raise ConfigurationError("TERTULIA_AUTH=off and TERTULIA_TOKEN are both set; unset one")
    if token:
        return Token(token)
    return "off" if switch else None


def _digest(token: str) -> bytes:
    """What is kept of a token and compared; any text has one."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def _checked(token: Any) -> str:
    """A token that may be set. Raises ConfigurationError, with a text that does not show it."""
    if not isinstance(token, str):
        raise ConfigurationError(f"a token is text, not {type(token).__name__}")
    if len(token) < MIN_TOKEN:
        raise ConfigurationError(
            f"a token has at least {MIN_TOKEN} characters, and this one {len(token)}; make one"
            ' with: python -c "import secrets; print(secrets.token_urlsafe())"'
        )
    if len(token) > MAX_TOKEN:
        raise ConfigurationError(f"a token has at most {MAX_TOKEN} characters")
    if not all("!" <= each <= "~" for each in token):
        raise ConfigurationError(
            "a token has visible ASCII characters only, no spaces and no end of line: it is sent"
            " in a header"
        )
    return token


def _named(user: Any) -> str:
    """The name of a user. Raises ConfigurationError."""
    if user == EVERYONE:
        raise ConfigurationError("no user can be named '*', which stands for everybody")
    try:
        return identifier(user, "the user of a token")
    except InvalidInput as error:
        raise ConfigurationError(str(error)) from None
