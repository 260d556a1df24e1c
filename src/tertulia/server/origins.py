"""Which addresses are this machine, which pages may connect, and by which names we are called.

A page in a browser can connect to any address, so two headers that browsers always send, and
that a page cannot change, are looked at: `Origin` says where the page came from, `Host` says by
which name it reached us. A page whose own name was made to point to 127.0.0.1 (DNS rebinding)
has both of them equal; there only the name itself gives it away.
"""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

_NAME = r"(?P<name>\[[0-9a-f]*:[0-9a-f:.]*\]|[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?)\.?"
_PORT = r"(?P<port>:[0-9]{1,5})?"
_HOST = re.compile(rf"{_NAME}{_PORT}", re.ASCII)
_ORIGIN = re.compile(rf"(?P<scheme>[a-z][a-z0-9+.-]*)://{_NAME}{_PORT}", re.ASCII)
_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}


class _Address(NamedTuple):
    """A host and its port, as they are compared; no port means that of the scheme."""

    name: str
    port: int | None


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine only.

    That is 127.0.0.0/8, ::1, localhost, and the path of a unix socket (`/…` or `unix:…`). A name
    is not looked up: any name but localhost counts as reachable from elsewhere.
    """
    name = host.removeprefix("[").removesuffix("]").removesuffix(".").lower()
    if name == "localhost" or name.startswith(("/", "unix:")):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def origin_allowed(
    origin: str | None, host: str | None, allowed: tuple[str, ...] | str | None = None
) -> bool:
    """Whether the page that connects may do so.

    `origin` and `host` are the headers of these names, None where they are not there. Without an
    origin it is not a browser, and is allowed; so are a page of the same host and port, and where
    both are loopback, of any port. `allowed` adds origins, like `https://example.com`; `"*"` is
    all. What cannot be read is not allowed.
    """
    listed = (allowed,) if isinstance(allowed, str) else allowed or ()
    if origin is None or "*" in listed:
        return True
    if origin.lower() in (each.lower().removesuffix("/") for each in listed):
        return True
    page = _ORIGIN.fullmatch(origin.lower())
    here = _HOST.fullmatch((host or "").lower())
    if page is None or here is None:
        return False
    standard = _PORTS.get(page["scheme"])
    theirs, ours = _address(page, standard), _address(here, standard)
    return theirs == ours or (is_loopback(theirs.name) and is_loopback(ours.name))


def host_allowed(
    host_header: str | None, allowed_hosts: tuple[str, ...] | str | None = None
) -> bool:
    """Whether we may be called by this name: the guard against DNS rebinding.

    Ask it where nobody has to show a token. The port does not matter. Names of loopback are
    always allowed; `allowed_hosts` adds names, like `agents.example.com`; `"*"` is all. A header
    that is missing or cannot be read is not allowed, but with `"*"`.
    """
    listed = (allowed_hosts,) if isinstance(allowed_hosts, str) else allowed_hosts or ()
    if "*" in listed:
        return True
    called = _HOST.fullmatch((host_header or "").lower())
    if called is None:
        return False
    names = {each.lower().removesuffix(".") for each in listed}
    return called["name"] in names or is_loopback(called["name"])


def _address(match: re.Match[str], standard: int | None) -> _Address:
    """What was matched as it is compared: addresses in one spelling, no port as the standard."""
    name, port = match["name"], match["port"]
    if name.startswith("["):
        try:
            name = f"[{ipaddress.IPv6Address(name[1:-1]).compressed}]"
        except ValueError:
            name = match["name"]
    return _Address(name, int(port[1:]) if port else standard)
