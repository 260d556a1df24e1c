"""Anchors: signed heads."""

import json
import sys
from typing import Any

import pytest
from tests.unit.audit.logs import PARENT, START, UID

from tertulia.audit import Head, check_anchor, generate_key, make_anchor, public_key
from tertulia.errors import ConfigurationError, InvalidInput

HEADS = [Head(PARENT, 7, b"p" * 32), Head(UID, 12, b"u" * 32)]
KEY = generate_key()


def test_an_anchor_gives_back_the_heads_that_were_signed() -> None:
    anchor = json.loads(json.dumps(make_anchor(HEADS, KEY, START)))
    assert anchor["time"] == "2023-11-14T22:13:20.000000Z"
    assert check_anchor(anchor, public_key(KEY)) == sorted(HEADS, key=lambda head: head.uid)
    assert check_anchor(anchor, KEY) == check_anchor(anchor, public_key(KEY))
    assert check_anchor(make_anchor([], KEY, START), KEY) == []


def test_an_anchor_of_another_key_is_refused() -> None:
    with pytest.raises(InvalidInput, match="was signed by the key"):
        check_anchor(make_anchor(HEADS, KEY, START), generate_key())


@pytest.mark.parametrize(
    "change",
    [
        {"time": "2020-01-01"},
        {"heads": []},
        {"heads": [[UID.hex(), 13, ("u" * 32).encode().hex()]]},
        {"signature": "00" * 64},
        {"signature": "no hex"},
        {"signature": 3},
        {"tertulia": 2},
        {"heads": [["zz", 1, "00"]]},
        {"heads": "none"},
        {"extra": 1},
        {"extra": object()},
    ],
)
def test_an_anchor_that_was_changed_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="anchor"):
        check_anchor({**make_anchor(HEADS, KEY, START), **change}, KEY)


@pytest.mark.parametrize("key", [b"", b"nonsense", "text", None, b"-----BEGIN PUBLIC KEY-----"])
def test_what_is_no_key_is_refused(key: Any) -> None:
    with pytest.raises(InvalidInput, match="the key"):
        make_anchor(HEADS, key, START)
    with pytest.raises(InvalidInput, match="the key"):
        check_anchor({}, key)


def test_a_public_key_does_not_sign() -> None:
    with pytest.raises(InvalidInput, match="no private Ed25519 key"):
        make_anchor(HEADS, public_key(KEY), START)


def test_another_kind_of_key_is_refused() -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey

    other = Ed448PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    with pytest.raises(InvalidInput, match="no private Ed25519 key"):
        make_anchor(HEADS, other, START)
    with pytest.raises(InvalidInput, match="no Ed25519 key"):
        check_anchor({}, other)


def test_without_the_package_the_text_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)
    for call in (generate_key, lambda: public_key(KEY), lambda: make_anchor(HEADS, KEY, START)):
        with pytest.raises(ConfigurationError, match="pip install cryptography"):
            call()
