"""Who may connect: JSON Web Tokens that somebody else has signed."""

from __future__ import annotations

import base64
import binascii
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, cast, final

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization as pem
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

from tertulia.clock import MICROSECONDS, Clock, SystemClock
from tertulia.errors import ConfigurationError, InvalidInput, MissingExtra, Unauthorized
from tertulia.server.auth import Principal, presented
from tertulia.values import identifier

try:
    from joserfc import errors as jose
    from joserfc import jwt
    from joserfc.jwk import ECKey, JWKRegistry, Key, KeySet, OctKey, OKPKey, RSAKey
    from joserfc.jws import JWSRegistry
except ImportError as error:
    raise MissingExtra("server", "joserfc, which checks JSON Web Tokens,") from error

MIN_SECRET = 32
MAX_LEEWAY = 600

_BEGIN = "-----BEGIN "
_FAULTS = (jose.JoseError, jose.SecurityWarning, UnsupportedAlgorithm, ValueError, TypeError)


@final
class JWT:
    """JSON Web Tokens: who shows one that is signed with `key` is the user in its `user_claim`.

    `key` is a secret of at least 32 bytes, the text of a public key or a certificate in PEM, a
    JWK or a set of them (as a dict or its text). Every one of `algorithms` must fit the kind of
    key: with a public key name them, like `("RS256",)`. A token needs `exp`; `audience` and
    `issuer`, one or a tuple, must be in it if they are given, and a token that is for an
    audience is refused where none is given. `leeway` is how many seconds clocks may differ.

    Raises ConfigurationError for a key that is weak, unreadable, or does not fit the algorithms,
    and for `none` as an algorithm. Nothing is fetched: a key that is replaced needs a new `JWT`.
    """

    def __init__(  # noqa: PLR0913 - one parameter for each thing that is checked
        self,
        key: str | bytes | Mapping[str, Any],
        *,
        algorithms: tuple[str, ...] = ("HS256",),
        audience: str | tuple[str, ...] | None = None,
        issuer: str | tuple[str, ...] | None = None,
        user_claim: str = "sub",
        leeway: int = 30,
        clock: Clock | None = None,
    ) -> None:
        if not 0 <= leeway <= MAX_LEEWAY:
            raise ConfigurationError(f"leeway is in seconds, from 0 to {MAX_LEEWAY}")
        time = clock or SystemClock()
        self._registry = _Registry(_texts(algorithms, "algorithms"))
        self._key = _fitting(_read(key), self._registry)
        self._audience = None if audience is None else _texts(audience, "audience")
        self._issuer = None if issuer is None else _texts(issuer, "issuer")
        self._user_claim = user_claim
        required: dict[str, Any] = {"exp": {"essential": True}}
        for claim, values in (("aud", self._audience), ("iss", self._issuer)):
            if values is not None:
                required[claim] = {"essential": True, "values": list(values)}
        self._rules = jwt.JWTClaimsRegistry(
            now=lambda: time.now() // MICROSECONDS, leeway=leeway, **required
        )

    def authenticate(self, token: str | None) -> Principal:
        """The user in this token. Raises Unauthorized."""
        shown = presented(token)
        try:
            claims = jwt.decode(shown, self._key, registry=self._registry).claims
            self._rules.validate(claims)
        except _FAULTS as fault:
            raise Unauthorized(_why(fault)) from None
        if self._audience is None and "aud" in claims:
            raise Unauthorized(
                "the token is for an audience, and this server names none; its operator passes"
                " audience= to JWT"
            )
        try:
            return Principal(identifier(claims.get(self._user_claim), "the user"))
        except InvalidInput:
            raise Unauthorized(
                f"the token names no user: its claim {self._user_claim!r} must be text"
            ) from None

    def __repr__(self) -> str:
        return f"JWT(<hidden>, algorithms={self._registry.names!r})"


class _Registry(JWSRegistry):
    """The algorithms that are allowed and no other; parameters of a header may be unknown."""

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__(algorithms=names, strict_check_header=False)
        self.names = names
        unknown = [name for name in names if name == "none" or name not in self.algorithms]
        if unknown:
            raise ConfigurationError(
                f"algorithms has {unknown[0]!r}, which signs nothing that can be checked; name"
                " some of HS256, RS256, PS256, ES256, Ed25519"
            )
        if len({self.algorithms[name].key_type == "oct" for name in names}) > 1:
            raise ConfigurationError(
                "algorithms has some for a secret (HS…) and some for a public key; with both,"
                " who knows the public key could sign: make one JWT for each"
            )

    def get_alg(self, name: str) -> Any:
        """The algorithm, if it is allowed."""
        if name not in self.names:
            raise jose.UnsupportedAlgorithmError
        return self.algorithms[name]


def _texts(value: str | Iterable[str], what: str) -> tuple[str, ...]:
    """One or more texts as a tuple. Raises ConfigurationError."""
    texts = (value,) if isinstance(value, str) else tuple(value)
    if not texts or not all(isinstance(each, str) and each for each in cast("Any", texts)):
        raise ConfigurationError(f"{what} is text or a tuple of texts, and not empty")
    return texts


def _read(key: Any) -> Key | KeySet:
    """The key that was given. Raises ConfigurationError, with a text that does not show it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", jose.SecurityWarning)
            return _parse(key)
    except _FAULTS as fault:
        name = type(fault).__name__
        raise ConfigurationError(
            f"the key of JWT cannot be used ({name}); pass a secret of at least {MIN_SECRET}"
            " bytes, a public key or certificate in PEM, a JWK or a set of them"
        ) from None


def _parse(key: Any) -> Key | KeySet:
    """The key that was given, told by its looks."""
    if isinstance(key, Mapping):
        members = dict(cast("Mapping[str, Any]", key))
        if "keys" in members:
            return KeySet.import_key_set(cast("Any", members))
        return JWKRegistry.import_key(members)
    if not isinstance(key, str | bytes):
        raise TypeError
    text = key.decode("latin-1") if isinstance(key, bytes) else key
    if text.lstrip().startswith("{"):
        return _parse(msgspec.json.decode(text, type=dict[str, Any]))
    if _BEGIN in text:
        return _asymmetric(text.strip().encode())
    if _is_bare_public_key(text):
        raise ConfigurationError(
            "the key of JWT is a public key without its first and last line; put it between"
            " '-----BEGIN PUBLIC KEY-----' and '-----END PUBLIC KEY-----'"
        )
    return OctKey.import_key(key)


def _asymmetric(text: bytes) -> Key:
    """The public half of what is in a PEM text."""
    if b"CERTIFICATE" in text:
        public = x509.load_pem_x509_certificate(text).public_key()
    elif b"PRIVATE" in text:
        public = pem.load_pem_private_key(text, password=None).public_key()
    else:
        public = pem.load_pem_public_key(text)
    plain = public.public_bytes(pem.Encoding.PEM, pem.PublicFormat.SubjectPublicKeyInfo)
    if isinstance(public, rsa.RSAPublicKey):
        return RSAKey.import_key(plain)
    if isinstance(public, ec.EllipticCurvePublicKey):
        return ECKey.import_key(plain)
    if isinstance(public, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        return OKPKey.import_key(plain)
    raise ConfigurationError("the key of JWT signs no token; pass an RSA, EC or Ed25519 key")


def _is_bare_public_key(text: str) -> bool:
    """Whether it is the base64 of a public key; as a secret it would be known to everybody."""
    try:
        pem.load_der_public_key(base64.b64decode("".join(text.split()), validate=True))
    except (binascii.Error, ValueError, UnsupportedAlgorithm):
        return False
    return True


def _fitting(key: Key | KeySet, registry: _Registry) -> Key | KeySet:
    """The key, or those of a set that fit an algorithm. Raises ConfigurationError."""
    names = ", ".join(registry.names)
    if isinstance(key, KeySet):
        fitting = [
            each for each in key.keys if any(_fits(each, name, registry) for name in registry.names)
        ]
        if not fitting:
            raise ConfigurationError(f"no key of the set can check {names}; name its algorithms")
        return KeySet(fitting)
    for name in registry.names:
        if not _fits(key, name, registry):
            raise ConfigurationError(
                f"a key of the kind {key.key_type} cannot check {name}; pass the algorithms that"
                " the tokens are signed with, like algorithms=('RS256',)"
            )
    return key


def _fits(key: Key, name: str, registry: _Registry) -> bool:
    """Whether the algorithm takes this key. Raises ConfigurationError for a secret too short."""
    try:
        registry.algorithms[name].check_key(key)
    except jose.JoseError:
        return False
    if isinstance(key, OctKey) and len(key.raw_value) < MIN_SECRET:
        raise ConfigurationError(
            f"the secret of JWT has {len(key.raw_value)} bytes and needs {MIN_SECRET}; make one"
            ' with: python -c "import secrets; print(secrets.token_urlsafe())"'
        )
    return True


def _why(fault: Exception) -> str:
    """Why a token is refused; says nothing that was in it."""
    if isinstance(fault, jose.ExpiredTokenError):
        return "the token has expired; get a new one"
    if isinstance(fault, jose.MissingClaimError):
        return "the token lacks a claim that this server needs, such as 'exp', 'aud' or 'iss'"
    if isinstance(fault, jose.InvalidClaimError):
        return f"the claim {fault.claim!r} of the token is not accepted by this server"
    return "the token is not accepted: it is not signed with the key and algorithm of this server"
