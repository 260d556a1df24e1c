"""What a carrier is told when somebody calls and when a call has ended, and who may ask."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any
from urllib.parse import urlencode
from xml.etree import ElementTree

import pytest
from tests.server.web import Answered, Client, serving

from tertulia import Runtime
from tertulia.errors import ConfigurationError
from tertulia.live import AgentSession, Settings
from tertulia.server.hub import Hub
from tertulia.server.limits import Limits
from tertulia.server.telephony import Telephony
from tertulia.wire.voice import signature

SECRET = "an-auth-token"
PUBLIC = "calls.example.com"
FORM = {"CallSid": "CA1", "From": "+15550100", "To": "+15550101", "Caller": "Zoë & Co"}


async def nobody(session: AgentSession) -> None:
    raise AssertionError(f"{session.session_id} was not meant to begin")


@contextlib.asynccontextmanager
async def asked(telephony: Telephony) -> AsyncGenerator[Client]:
    """Whoever asks a server that has this telephony."""
    async with Runtime("memory:") as runtime:
        routes = telephony.routes(Hub(nobody, Settings()), runtime, Limits())
        async with serving(routes) as client:
            yield client


@pytest.fixture
async def web() -> AsyncIterator[Client]:
    telephony = Telephony(
        f"wss://{PUBLIC}/eu", auth_token=SECRET, welcome_greeting="Hello!", dtmf_detection=True
    )
    async with asked(telephony) as client:
        yield client


@pytest.fixture
async def unsigned() -> AsyncIterator[Client]:
    telephony = Telephony(parameters={"shop": "Lisbon"}, languages=[{"code": "pt-PT"}])
    async with asked(telephony) as client:
        yield client


async def posted(
    web: Client,
    path: str,
    form: Mapping[str, Any] = FORM,
    *,
    sign: str | None = None,
    token: str = SECRET,
    headers: Mapping[str, str] | None = None,
) -> Answered:
    kind = {"content-type": "application/x-www-form-urlencoded", **(headers or {})}
    if sign is not None:
        kind["x-twilio-signature"] = signature(token, sign, form)
    return await web.ask("POST", path, headers=kind, raw=urlencode(form, doseq=True).encode())


def parsed(answered: Answered) -> ElementTree.Element:
    assert answered.status == 200, answered
    assert answered.headers["content-type"].startswith("text/xml")
    assert answered.headers["cache-control"] == "no-store"
    return ElementTree.fromstring(answered.data)


# -- when somebody calls


async def test_a_signed_call_is_connected_to_the_relay(web: Client) -> None:
    root = parsed(await posted(web, "/voice", sign=f"https://{PUBLIC}/eu/voice"))
    [connect] = root
    assert connect.attrib == {"action": f"https://{PUBLIC}/eu/voice/ended"}
    [relay] = connect
    assert relay.attrib == {
        "url": f"wss://{PUBLIC}/eu/voice/relay",
        "welcomeGreeting": "Hello!",
        "dtmfDetection": "true",
    }


async def test_the_signature_is_over_the_query_and_over_fields_that_come_twice(
    web: Client,
) -> None:
    form = {**FORM, "Digits": ["5", "1"]}
    url = f"https://{PUBLIC}/eu/voice?shop=Lisbon%20A&x="
    parsed(await posted(web, "/voice?shop=Lisbon%20A&x=", form, sign=url))
    other = await posted(web, "/voice?shop=Porto&x=", form, sign=url)
    assert other.status == 403


async def test_a_call_may_be_announced_by_get(web: Client) -> None:
    path = f"/voice?{urlencode(FORM)}"
    signed = signature(SECRET, f"https://{PUBLIC}/eu{path}")
    parsed(await web.ask("GET", path, headers={"x-twilio-signature": signed}))
    assert (await web.ask("GET", path)).status == 403


@pytest.mark.parametrize("path", ["/voice", "/voice/ended"])
async def test_a_wrong_signature_is_refused_and_the_token_is_not_told(
    web: Client, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"https://{PUBLIC}/eu{path}"
    for answered in (
        await posted(web, path),
        await posted(web, path, sign=url, token="another"),
        await posted(web, path, sign=f"http://127.0.0.1{path}"),
        await posted(web, path, headers={"x-twilio-signature": "none"}),
    ):
        assert answered.status == 403
        assert SECRET not in answered.data
    assert "refused" in caplog.text
    assert SECRET not in caplog.text


async def test_a_changed_field_is_refused(web: Client) -> None:
    good = signature(SECRET, f"https://{PUBLIC}/eu/voice", FORM)
    answered = await posted(
        web, "/voice", {**FORM, "From": "+15550199"}, headers={"x-twilio-signature": good}
    )
    assert answered.status == 403


async def test_without_a_url_the_relay_is_where_the_request_came(unsigned: Client) -> None:
    [[relay]] = parsed(await posted(unsigned, "/voice", headers={"host": "tunnel.example.com"}))
    assert relay.attrib == {"url": "wss://tunnel.example.com/voice/relay"}
    assert [(each.tag, *each.attrib.values()) for each in relay] == [
        ("Language", "pt-PT"),
        ("Parameter", "shop", "Lisbon"),
    ]
    [[relay]] = parsed(await posted(unsigned, "/voice", headers={"host": "127.0.0.1:8080"}))
    assert relay.attrib == {"url": "ws://127.0.0.1:8080/voice/relay"}


@pytest.mark.parametrize("host", ["", "a b", "x/y", "<relay>", "a@b"])
async def test_a_host_that_is_no_name_is_refused(unsigned: Client, host: str) -> None:
    assert (await posted(unsigned, "/voice", headers={"host": host})).status == 400


async def test_a_form_has_a_limit(unsigned: Client) -> None:
    assert (await posted(unsigned, "/voice", {"a": "x" * 70_000})).status == 413
    assert (await posted(unsigned, "/voice", {"a": ["b"] * 1_001})).status == 413


# -- when the relay has ended


async def test_a_call_that_was_transferred_is_connected_to_the_number(web: Client) -> None:
    told = {"reason": "transfer", "transfer_call_number": "+15550199"}
    form = {**FORM, "HandoffData": json.dumps(told)}
    root = parsed(await posted(web, "/voice/ended", form, sign=f"https://{PUBLIC}/eu/voice/ended"))
    assert root.findtext("Dial") == "+15550199"


@pytest.mark.parametrize(
    "handed_off",
    [
        None,
        "",
        "live agent, please",
        "[]",
        "{}",
        '{"transfer_call_number": 5}',
        '{"transfer_call_number": "\\u0000"}',
        "[" * 5_000,
    ],
)
async def test_any_other_call_is_hung_up(unsigned: Client, handed_off: str | None) -> None:
    form = FORM if handed_off is None else {**FORM, "HandoffData": handed_off}
    root = parsed(await posted(unsigned, "/voice/ended", form))
    assert [each.tag for each in root] == ["Hangup"]


async def test_an_action_of_the_applications_own_is_asked_instead() -> None:
    telephony = Telephony(f"wss://{PUBLIC}", action="https://example.com/next")
    async with asked(telephony) as client:
        [connect] = parsed(await posted(client, "/voice"))
    assert connect.attrib == {"action": "https://example.com/next"}


# -- how it is set up


@pytest.mark.parametrize(
    ("url", "relay"),
    [
        ("wss://calls.example.com", "wss://calls.example.com/calls/relay"),
        ("wss://calls.example.com/", "wss://calls.example.com/calls/relay"),
        ("wss://calls.example.com:8443/eu", "wss://calls.example.com:8443/eu/calls/relay"),
        ("wss://calls.example.com/else/relay", "wss://calls.example.com/else/relay"),
    ],
)
def test_the_relays_url_is_told_whole_or_by_its_host(url: str, relay: str) -> None:
    assert Telephony(url, path="/calls").url == relay


@pytest.mark.parametrize(
    "url", ["https://calls.example.com", "calls.example.com", "wss://", "wss://a/?b=c", ""]
)
def test_a_url_that_no_relay_has_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="wss://"):
        Telephony(url)


@pytest.mark.parametrize("path", ["voice", "/voice/", "/", ""])
def test_a_path_begins_with_a_slash_and_does_not_end_with_one(path: str) -> None:
    with pytest.raises(ConfigurationError, match="/voice"):
        Telephony(path=path)


def test_what_cannot_be_said_to_the_carrier_is_refused_at_once() -> None:
    with pytest.raises(ConfigurationError, match="XML"):
        Telephony(welcome_greeting="\x00")
    with pytest.raises(ConfigurationError, match="no attribute"):
        Telephony(ttsProvider="google")


def test_a_signature_needs_the_url_that_it_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="auth_token"):
        Telephony(auth_token=SECRET)
    monkeypatch.setenv("TERTULIA_TELEPHONY_TOKEN", SECRET)
    with pytest.raises(ConfigurationError, match="auth_token"):
        Telephony()
    assert "signed" in repr(Telephony(f"wss://{PUBLIC}"))
    assert SECRET not in repr(Telephony(f"wss://{PUBLIC}"))


def test_calls_from_elsewhere_must_be_signed_unless_that_is_switched_off(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Telephony().check("127.0.0.1")
    Telephony(f"wss://{PUBLIC}", auth_token=SECRET).check("0.0.0.0")
    with pytest.raises(ConfigurationError, match="TERTULIA_TELEPHONY_TOKEN"):
        Telephony().check("0.0.0.0")
    assert caplog.text == ""
    with caplog.at_level(logging.WARNING, "tertulia.server"):
        Telephony().check("0.0.0.0", "off")
        assert "NOT CHECKED" in caplog.text
        monkeypatch.setenv("TERTULIA_AUTH", "off")
        Telephony().check("0.0.0.0")
