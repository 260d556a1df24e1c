"""The address of a database: what is for the driver, what is for us, and what may be shown."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit, urlunsplit

from tertulia.errors import ConfigurationError

LEASE_SECONDS = 5.0
SHORTEST_LEASE, LONGEST_LEASE = 2.0, 300.0


class Address(NamedTuple):
    """Where a store lies."""

    url: str
    """For the driver; of a pooler, where there is one."""
    direct: str
    """For the driver, past any pooler."""
    shown: str
    """Without secrets."""
    lease: float = LEASE_SECONDS
    """How long a worker may be silent, in seconds."""

    @property
    def pooled(self) -> bool:
        """Whether a pooler may give each transaction another connection."""
        return self.direct != self.url


def parse(url: str) -> Address:
    """Raises ConfigurationError."""
    try:
        return _parse(url)
    except ValueError:
        raise ConfigurationError(
            "the address of the store cannot be read: check its brackets and its port, and "
            "URL-encode what is special in the password"
        ) from None


def _parse(url: str) -> Address:
    parts = urlsplit(url)
    _check_port(parts)
    if parts.scheme not in {"postgresql", "postgres"} or not parts.path.strip("/"):
        raise ConfigurationError(
            f"{_shown(url)!r} names no database; write it like postgresql://user@host/database"
        )
    options = parse_qsl(parts.query, keep_blank_values=True)
    rest = [(name, value) for name, value in options if name not in {"direct", "lease"}]
    plain = urlunsplit(parts._replace(query=urlencode(rest)))
    direct = dict(options).get("direct") or plain
    _check_port(urlsplit(direct))
    if urlsplit(direct).scheme not in {"postgresql", "postgres"}:
        raise ConfigurationError("?direct= takes the whole address of the database, URL-encoded")
    return Address(plain, direct, _shown(url), _lease(dict(options).get("lease")))


def _check_port(parts: SplitResult) -> None:
    """Raises ValueError where a port of its hosts is none."""
    for host in parts.netloc.rpartition("@")[2].split(","):
        _ = SplitResult("", host, "", "", "").port


def _lease(given: str | None) -> float:
    try:
        seconds = LEASE_SECONDS if given is None else float(given)
    except ValueError:
        seconds = 0.0
    if not SHORTEST_LEASE <= seconds <= LONGEST_LEASE:
        raise ConfigurationError(
            f"?lease= takes {SHORTEST_LEASE:g} to {LONGEST_LEASE:g} seconds, not {given!r}"
        )
    return seconds


def _shown(url: str) -> str:
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    query = [
        (name, _shown(value) if name == "direct" else value)
        for name, value in parse_qsl(parts.query, keep_blank_values=True)
        if "password" not in name
    ]
    netloc = user.partition(":")[0] + at + host
    return urlunsplit(parts._replace(netloc=netloc, query=urlencode(query)))
