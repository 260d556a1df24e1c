"""The HTTP half of a phone call: who signed a request, and the XML that answers it. No I/O."""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit
from xml.sax.saxutils import escape, quoteattr

from tertulia.errors import InvalidInput

_PORTS = {"https": 443, "wss": 443, "http": 80, "ws": 80}
_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*\Z")
_NOT_IN_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_HEAD = '<?xml version="1.0" encoding="UTF-8"?>'

Params = Mapping[str, str | Sequence[str]]
"""The fields of a form; one that was sent more than once has a list."""


# -- signatures


def signature(auth_token: str, url: str, params: Params | None = None) -> str:
    """The signature of a request, as Twilio puts it into ``X-Twilio-Signature``.

    It is over the full URL as the carrier was given it, and over the fields of a posted form in
    the order of their names; a WebSocket's handshake has none.
    """
    signed = [url]
    for name in sorted(params or {}):
        given = (params or {})[name]
        values = [given] if isinstance(given, str) else sorted(set(given))
        signed += [f"{name}{value}" for value in values]
    text = "".join(signed).encode("utf-8", "surrogatepass")
    return base64.b64encode(hmac.digest(auth_token.encode(), text, "sha1")).decode()


def signed(auth_token: str, url: str, params: Params | None, given: str | None) -> bool:
    """Whether a request was signed with this token, in a time that tells nothing of it.

    Carriers do not agree on whether the port is a part of the URL: the URL as it is, without its
    port and with the standard one all do.
    """
    if not given:
        return False
    offered = given.encode("utf-8", "surrogatepass")
    matches = [
        hmac.compare_digest(signature(auth_token, variant, params).encode(), offered)
        for variant in _variants(url)
    ]
    return any(matches)


def _variants(url: str) -> list[str]:
    try:
        parts = urlsplit(url)
    except ValueError:
        return [url]  # no URL that a carrier could have been given
    host = parts.netloc.rpartition("@")[2]
    name = re.sub(r":\d*\Z", "", host)
    port = _PORTS.get(parts.scheme)
    before, found, after = url.partition(f"//{parts.netloc}")
    if not (found and name):
        return [url]
    login = parts.netloc[: len(parts.netloc) - len(host)]
    bare = f"{before}//{login}{name}{after}"
    standard = f"{before}//{login}{name}:{port}{after}"
    return [url, bare] if port is None else [url, bare, standard]


# -- what the carrier is told to do


def voice_response(
    url: str,
    *,
    welcome_greeting: str | None = None,
    action: str | None = None,
    parameters: Mapping[str, str] | None = None,
    languages: Iterable[Mapping[str, Any]] = (),
    **attributes: str | bool | float | None,
) -> str:
    """The XML (TwiML, TeXML) that connects a call to a relay's WebSocket.

    `action` is the URL that is asked what to do when the relay has ended. `parameters` reach the
    session as its initial variables. `languages` are the languages that the call may change to,
    each with its attributes: ``{"code": "es-ES", "voice": …}``. All other attributes are the
    carrier's, with underscores: ``voice``, ``language``, ``tts_provider``, ``interruptible``,
    ``dtmf_detection``. Raises InvalidInput for what cannot be said in XML.
    """
    if not url.startswith(("wss://", "ws://")):
        raise InvalidInput(f"the relay's URL is {url!r}; it must begin with wss://")
    inner = [_element("Language", each) for each in languages]
    inner += [
        _element("Parameter", {"name": name, "value": value})
        for name, value in (parameters or {}).items()
    ]
    relay = {"url": url, "welcome_greeting": welcome_greeting, **attributes}
    connect = _element("Connect", {"action": action}, _element("ConversationRelay", relay, *inner))
    return f"{_HEAD}{_element('Response', {}, connect)}"


def transfer_response(number: str) -> str:
    """The XML that connects a call to a phone number. Raises InvalidInput."""
    return f"{_HEAD}{_element('Response', {}, f'<Dial>{escape(_allowed(number))}</Dial>')}"


def hangup_response() -> str:
    """The XML that ends a call."""
    return f"{_HEAD}{_element('Response', {}, '<Hangup/>')}"


def _element(name: str, attributes: Mapping[str, Any], *inner: str) -> str:
    said = "".join(
        f" {_attribute(key)}={quoteattr(_value(value))}"
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{said}>{''.join(inner)}</{name}>" if inner else f"<{name}{said}/>"


def _attribute(name: str) -> str:
    if not _NAME.match(name):
        raise InvalidInput(f"{name!r} is no attribute; write it in small letters, as tts_provider")
    first, *others = name.split("_")
    return first + "".join(other.capitalize() for other in others)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return _allowed(str(value))


def _allowed(text: str) -> str:
    wrong = _NOT_IN_XML.search(text)
    if wrong is not None:
        raise InvalidInput(f"XML cannot hold the character {wrong.group()!r}; remove it")
    return text
