"""Anchors: the heads of logs, signed with a key that is kept outside of the store.

With an anchor, truncation, deletion and rewriting of a log up to it are found.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from tertulia.clock import to_iso
from tertulia.errors import ConfigurationError, InvalidInput

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

ANCHOR_VERSION: Final = 1


class Head(msgspec.Struct, frozen=True):
    """Where a log stood: its session's uid, the position and the digest of its newest event."""

    uid: bytes
    seq: int
    digest: bytes


class _Anchor(msgspec.Struct, forbid_unknown_fields=True):
    tertulia: int
    time: str
    heads: list[tuple[str, int, str]]
    key: str
    signature: str


def generate_key() -> bytes:
    """A new private key as PEM, not encrypted; keep it outside of the store."""
    _require_cryptography()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def public_key(key_pem: bytes) -> bytes:
    """The public half of a private key, as PEM, for those who check. Raises InvalidInput."""
    _require_cryptography()
    from cryptography.hazmat.primitives import serialization

    return (
        _private(key_pem)
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


def make_anchor(heads: Iterable[Head], key_pem: bytes, now: int) -> dict[str, Any]:
    """Some heads with their signature (Ed25519), as JSON-able data; `now` in microseconds.

    Raises InvalidInput when the key is no private Ed25519 key as PEM, and ConfigurationError
    when `cryptography` is not installed.
    """
    key = _private(key_pem)
    listed = sorted((head.uid.hex(), head.seq, head.digest.hex()) for head in heads)
    anchor: dict[str, Any] = {
        "tertulia": ANCHOR_VERSION,
        "time": to_iso(now),
        "heads": [list(head) for head in listed],
        "key": _fingerprint(key.public_key()),
    }
    anchor["signature"] = key.sign(_signed(anchor)).hex()
    return anchor


def check_anchor(anchor: Mapping[str, Any], key_pem: bytes) -> list[Head]:
    """The heads in an anchor, once its signature is found to be by this key.

    `key_pem` is the public or the private key. Raises InvalidInput when the anchor is none, or
    was changed, or was signed by another key.
    """
    key = _public(key_pem)
    from cryptography.exceptions import InvalidSignature

    found, heads, signature = _read(anchor)
    if found.key != _fingerprint(key):
        raise InvalidInput(
            f"the anchor was signed by the key {found.key[:16]}, not by {_fingerprint(key)}"
        )
    try:
        key.verify(signature, _signed(msgspec.to_builtins(found)))
    except InvalidSignature:
        raise InvalidInput("the anchor is not what was signed") from None
    return heads


def _read(anchor: Mapping[str, Any]) -> tuple[_Anchor, list[Head], bytes]:
    try:
        found = msgspec.convert(dict(anchor), _Anchor)
        heads = [
            Head(bytes.fromhex(uid), seq, bytes.fromhex(digest)) for uid, seq, digest in found.heads
        ]
        signature = bytes.fromhex(found.signature)
    except (msgspec.ValidationError, ValueError, TypeError) as error:
        raise InvalidInput(f"this is no anchor: {error}") from None
    if found.tertulia != ANCHOR_VERSION:
        raise InvalidInput(
            f"the anchor has version {found.tertulia}; this is known: {ANCHOR_VERSION}"
        )
    return found, heads, signature


def _signed(anchor: Mapping[str, Any]) -> bytes:
    data = {name: value for name, value in anchor.items() if name != "signature"}
    return b"tertulia.1/anchor\0" + msgspec.json.encode(data, order="sorted")


def _fingerprint(key: Ed25519PublicKey) -> str:
    return sha256(key.public_bytes_raw()).hexdigest()[:16]


def _private(key_pem: bytes) -> Ed25519PrivateKey:
    key = _loaded(key_pem)
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    if not isinstance(key, Ed25519PrivateKey):
        raise InvalidInput("the key is no private Ed25519 key; generate_key() makes one")
    return key


def _public(key_pem: bytes) -> Ed25519PublicKey:
    key = _loaded(key_pem)
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

    if isinstance(key, Ed25519PrivateKey):
        return key.public_key()
    if not isinstance(key, Ed25519PublicKey):
        raise InvalidInput("the key is no Ed25519 key; public_key() gives the one to check with")
    return key


def _loaded(key_pem: object) -> object:
    _require_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    if not isinstance(key_pem, bytes):
        raise InvalidInput("the key must be given as the bytes of a PEM file")
    try:
        if b"PUBLIC KEY" in key_pem:
            return cast("object", serialization.load_pem_public_key(key_pem))
        return cast("object", serialization.load_pem_private_key(key_pem, password=None))
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InvalidInput(f"the key is no PEM that can be read: {error}") from None


def _require_cryptography() -> None:
    try:
        import cryptography  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ImportError:
        raise ConfigurationError(
            "cryptography is not installed; install it with: pip install cryptography"
        ) from None
