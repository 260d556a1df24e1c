"""Keys of NATS users (nkeys): read from their files, to sign what a server asks to be signed."""

from __future__ import annotations

import base64
import binascii
import re
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tertulia.errors import ConfigurationError

_SEED = 18 << 3
_USER = 20 << 3
_LENGTH = 2 + 32 + 2
"""Bytes of a seed: two of what it is, the key, two of a checksum."""
_BLOCK = re.compile(r"-----BEGIN ([A-Z ]+)-----\s+(\S+)\s+-+END")


class UserKey:
    """The key of a user. Never in a text: what it shows is its public half."""

    def __init__(self, seed: str) -> None:
        """Raises ConfigurationError."""
        self._key = Ed25519PrivateKey.from_private_bytes(_decoded(seed))
        body = bytes([_USER]) + self._key.public_key().public_bytes_raw()
        self.public = _encoded(body)

    def sign(self, nonce: str) -> bytes:
        """The signature of what a server has sent, in base 64."""
        return base64.b64encode(self._key.sign(nonce.encode()))


def read_key(options: dict[str, str]) -> tuple[UserKey, bytes | None] | None:
    """The key of a user and the token (JWT) for it, from the file that ``creds`` or ``nkey`` names.

    Raises ConfigurationError.
    """
    if "nkey" in options:
        return UserKey(_read(options["nkey"]).strip()), None
    if "creds" not in options:
        return None
    path = options["creds"]
    blocks: dict[str, str] = dict(_BLOCK.findall(_read(path)))
    token, seed = blocks.get("NATS USER JWT"), blocks.get("USER NKEY SEED")
    if token is None or seed is None:
        raise ConfigurationError(f"{path} is no credentials file of NATS, with a JWT and a seed")
    return UserKey(seed), token.encode()


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {type(error).__name__}") from error


def _decoded(seed: str) -> bytes:
    try:
        raw = base64.b32decode(seed + "=" * (-len(seed) % 8))
    except binascii.Error:
        raw = b""
    is_user = len(raw) == _LENGTH and (raw[0] & 0xF8, (raw[0] & 7) << 5 | raw[1] >> 3) == (
        _SEED,
        _USER,
    )
    if not is_user or _checksum(raw[:-2]) != raw[-2:]:
        raise ConfigurationError("the file has no seed of a NATS user, which begins with SU")
    return raw[2:-2]


def _encoded(body: bytes) -> str:
    return base64.b32encode(body + _checksum(body)).decode().rstrip("=")


def _checksum(body: bytes) -> bytes:
    return binascii.crc_hqx(body, 0).to_bytes(2, "little")
