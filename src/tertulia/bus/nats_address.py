"""The address of NATS: what is for the driver, what is for us, and what may be shown."""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from typing import NamedTuple
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from tertulia.errors import ConfigurationError

LIKE = "nats://user:password@host:4222?name=my-app"
DEFAULT_NAME = "default"
PORT = 4222

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_OPTIONS = ("name", "token", "creds", "nkey", "tls_ca", "tls_cert", "tls_key")
_FILES = ("creds", "nkey", "tls_ca", "tls_cert", "tls_key")


class Address(NamedTuple):
    """Where NATS is, and how to be let in. Never show it: it holds secrets."""

    servers: tuple[str, ...]
    """One address each, without secrets."""
    name: str
    """What all subjects begin with, after ``tertulia.``."""
    tls: bool
    """Whether a connection without TLS is refused."""
    user: str | None
    password: str | None
    options: dict[str, str]
    """All others: token, and paths of files."""

    @property
    def shown(self) -> str:
        """Without secrets."""
        first, *others = self.servers
        hosts = ",".join([first, *(each.partition("://")[2] for each in others)])
        return hosts if self.name == DEFAULT_NAME else f"{hosts}?name={self.name}"

    @property
    def token(self) -> str | None:
        return self.options.get("token")


def parse(url: str) -> Address:
    """Raises ConfigurationError, whose text never quotes what may be a secret."""
    scheme, _, rest = url.partition("://")
    place, _, query = rest.partition("?")
    if scheme not in {"nats", "tls"} or not place:
        raise ConfigurationError(f"this names no NATS server; write it like {LIKE}")
    parts = [_server(scheme, each) for each in place.rstrip("/").split(",")]
    options = _read_options(query)
    user, password = _who(parts, options)
    return Address(
        servers=tuple(f"{scheme}://{_host(each)}:{each.port or PORT}" for each in parts),
        name=options.pop("name", DEFAULT_NAME),
        tls=scheme == "tls" or any(name.startswith("tls_") for name in options),
        user=user,
        password=password,
        options=options,
    )


def tls_context(address: Address) -> ssl.SSLContext | None:
    """How to speak TLS, read from its files; None without. Raises ConfigurationError."""
    if not address.tls:
        return None
    options = address.options
    try:
        context = ssl.create_default_context(cafile=options.get("tls_ca"))
        if "tls_cert" in options:
            context.load_cert_chain(options["tls_cert"], options.get("tls_key"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"the files of ?tls_ca=, ?tls_cert= and ?tls_key= cannot be used: {error}"
        ) from error
    return context


def _server(scheme: str, text: str) -> SplitResult:
    text = text.removeprefix(f"{scheme}://")
    try:
        parts = urlsplit(f"{scheme}://{text}")
        if parts.hostname and not parts.path and "://" not in text and parts.port != 0:
            return parts
    except ValueError:
        parts = None
    raise ConfigurationError(
        f"one of the NATS servers is no host and port; write them like {LIKE}, several as "
        "nats://one:4222,two:4222, and characters such as / ? # , @ in a password as %2F"
    )


def _host(parts: SplitResult) -> str:
    host = parts.hostname or ""
    return f"[{host}]" if ":" in host else host


def _read_options(query: str) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    if unknown := sorted(set(options) - set(_OPTIONS)):
        raise ConfigurationError(
            f"?{unknown[0]}= is no option of NATS; there are {', '.join(_OPTIONS)}"
        )
    if not _NAME.fullmatch(options.get("name", DEFAULT_NAME)):
        raise ConfigurationError("?name= takes up to 64 letters, digits, - and _")
    for option in _FILES:
        if option in options and not Path(options[option]).is_file():
            raise ConfigurationError(f"?{option}= takes the path of a file that is there")
    if ("tls_key" in options) > ("tls_cert" in options):
        raise ConfigurationError("?tls_key= needs ?tls_cert= too")
    return options


def _who(parts: list[SplitResult], options: dict[str, str]) -> tuple[str | None, str | None]:
    """User and password; a user without a password is a token, as other clients have it."""
    given = {(each.username, each.password) for each in parts if each.username is not None}
    if len(given) > 1:
        raise ConfigurationError("give all NATS servers the same user and password")
    user, password = given.pop() if given else (None, None)
    if user is not None and password is None:
        options.setdefault("token", unquote(user))
        user = None
    ways = (user is not None, *(each in options for each in ("token", "creds", "nkey")))
    if sum(ways) > 1:
        raise ConfigurationError("give one of user:password@, ?token=, ?creds= and ?nkey=")
    return (None, None) if user is None else (unquote(user), unquote(password or ""))
