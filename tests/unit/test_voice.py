"""Who signed a request of a carrier, and the XML that answers it."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tertulia.errors import InvalidInput
from tertulia.wire.voice import (
    hangup_response,
    signature,
    signed,
    transfer_response,
    voice_response,
)

URL = "https://mycompany.com/myapp.php?foo=1&bar=2"
FORM = {
    "CallSid": "CA1234567890ABCDE",
    "Caller": "+14158675309",
    "Digits": "1234",
    "From": "+14158675309",
    "To": "+18005551212",
}
RELAY = "wss://calls.example.com/voice/relay"


# -- signatures; the expected values are those that the carrier publishes


def test_a_posted_form_is_signed_as_published() -> None:
    assert signature("12345", URL, FORM) == "RSOYDt4T1cUTdK1PDd93/VVr8B8="


def test_the_order_of_the_fields_does_not_count() -> None:
    backwards = dict(reversed(FORM.items()))
    assert signature("12345", URL, backwards) == signature("12345", URL, FORM)


def test_a_field_that_was_sent_twice_is_signed_with_both_values() -> None:
    form = {"Sid": "CA123", "SidAccount": "AC123", "Digits": ["5678", "1234"]}
    assert signature("12345", URL, form) == "IK+Dwps556ElfBT0I3Rgjkr1wJU="


@pytest.mark.parametrize(
    ("url", "given"),
    [
        (URL, "RSOYDt4T1cUTdK1PDd93/VVr8B8="),
        (URL.replace(".com", ".com:1234"), "RSOYDt4T1cUTdK1PDd93/VVr8B8="),
        (
            URL.replace(".com", ".com:1234").replace("https", "http"),
            "Zmvh+3yNM1Phv2jhDCwEM3q5ebU=",
        ),
        (URL, "kvajT1Ptam85bY51eRf/AJRuM3w="),
        (URL.replace("https", "http"), "0ZXoZLH/DfblKGATFgpif+LLRf4="),
    ],
)
def test_the_port_may_be_in_the_signed_url_or_not(url: str, given: str) -> None:
    assert signed("12345", url, FORM, given)


def test_a_handshake_is_signed_over_its_url_only() -> None:
    good = signature("secret", RELAY)
    assert signed("secret", RELAY, None, good)
    assert signed("secret", RELAY, {}, good)
    assert not signed("other", RELAY, None, good)
    assert not signed("secret", f"{RELAY}/", None, good)
    assert not signed("secret", RELAY.replace("wss", "https"), None, good)


@pytest.mark.parametrize("wrong", [None, "", "x", "é\ud800", "RSOYDt4T1cUTdK1PDd93/VVr8B8"])
def test_what_is_no_signature_is_none(wrong: str | None) -> None:
    assert not signed("12345", URL, FORM, wrong)


@given(st.text(), st.dictionaries(st.text(), st.text()), st.text())
def test_a_signature_holds_for_what_was_signed_and_for_no_other_token(
    url: str, form: dict[str, str], token: str
) -> None:
    given_signature = signature(token, url, form)
    assert signed(token, url, form, given_signature)
    assert not signed(token + "x", url, form, given_signature)


@given(st.text(alphabet="htps:/[]@0129.a", max_size=20))
def test_no_url_breaks_the_check(url: str) -> None:
    assert not signed("token", url, None, "none")


# -- XML


def parsed(xml: str) -> ElementTree.Element:
    return ElementTree.fromstring(xml.encode())


def test_a_call_is_connected_to_the_relay() -> None:
    assert voice_response(RELAY, welcome_greeting="Hello!") == (
        '<?xml version="1.0" encoding="UTF-8"?><Response><Connect>'
        f'<ConversationRelay url="{RELAY}" welcomeGreeting="Hello!"/>'
        "</Connect></Response>"
    )


def test_attributes_parameters_and_languages_have_the_published_names() -> None:
    root = parsed(
        voice_response(
            RELAY,
            action="https://calls.example.com/voice/ended",
            parameters={"shop": "Lisbon"},
            languages=[{"code": "es-ES", "tts_provider": "google"}, {"code": "fr-FR"}],
            dtmf_detection=True,
            interruptible="none",
            welcome_greeting_interruptible=False,
            voice=None,
        )
    )
    [connect] = root
    assert connect.attrib == {"action": "https://calls.example.com/voice/ended"}
    [relay] = connect
    assert relay.attrib == {
        "url": RELAY,
        "dtmfDetection": "true",
        "interruptible": "none",
        "welcomeGreetingInterruptible": "false",
    }
    assert [(each.tag, each.attrib) for each in relay] == [
        ("Language", {"code": "es-ES", "ttsProvider": "google"}),
        ("Language", {"code": "fr-FR"}),
        ("Parameter", {"name": "shop", "value": "Lisbon"}),
    ]


XML_TEXT = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff")
    | st.sampled_from("\n\t<>&\"'"),
)


@given(XML_TEXT, st.dictionaries(XML_TEXT, XML_TEXT, max_size=3))
def test_every_text_arrives_as_it_was(greeting: str, parameters: dict[str, str]) -> None:
    root = parsed(voice_response(RELAY, welcome_greeting=greeting, parameters=parameters))
    [[relay]] = root
    assert relay.attrib["welcomeGreeting"] == greeting
    assert {each.attrib["name"]: each.attrib["value"] for each in relay} == parameters


@pytest.mark.parametrize("text", ["a\x00b", "\x1b", "\ud800", "\uffff"])
def test_what_xml_cannot_hold_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="XML cannot hold"):
        voice_response(RELAY, welcome_greeting=text)
    with pytest.raises(InvalidInput, match="XML cannot hold"):
        transfer_response(text)


@pytest.mark.parametrize("name", ["ttsProvider", "a b", "x><", "_voice", "9"])
def test_an_attribute_is_written_with_underscores(name: str) -> None:
    wrong: dict[str, Any] = {name: "x"}
    with pytest.raises(InvalidInput, match="no attribute"):
        voice_response(RELAY, **wrong)


@pytest.mark.parametrize("url", ["https://calls.example.com/relay", "calls.example.com", ""])
def test_the_relays_url_is_that_of_a_websocket(url: str) -> None:
    with pytest.raises(InvalidInput, match="wss://"):
        voice_response(url)


def test_a_call_is_transferred_and_ended() -> None:
    assert parsed(transfer_response("+1 <555>")).findtext("Dial") == "+1 <555>"
    assert [each.tag for each in parsed(hangup_response())] == ["Hangup"]
