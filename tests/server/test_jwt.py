"""Who may connect with a JSON Web Token, and which keys and tokens are refused."""

from __future__ import annotations

import base64
import datetime
import json
import math
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwk, jwt
from joserfc.jws import JWSRegistry

from tertulia.clock import MICROSECONDS, from_moment
from tertulia.errors import ConfigurationError, Unauthorized
from tertulia.server.auth import MAX_TOKEN, Authenticator, Principal
from tertulia.server.jwt import JWT
from tertulia.testing import FrozenClock

SECRET = "a-secret-that-is-long-enough-for-hs256"
NOW = from_moment("2026-01-01") // MICROSECONDS
CLAIMS: dict[str, Any] = {"sub": "alice", "exp": NOW + 60}

RSA_KEY = rsa.generate_private_key(65537, 2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
OTHER_EC_KEY = ec.generate_private_key(ec.SECP256R1())
ED_KEY = ed25519.Ed25519PrivateKey.generate()


def public_pem(key: Any) -> str:
    """The text of the public half of a key."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, form).decode()


def private_pem(key: Any) -> str:
    """The text of a key, which can sign."""
    form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, form, plain).decode()


def certificate(key: Any) -> str:
    """The text of a certificate of the key, signed by itself."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "tests")])
    start = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name)
    made = made.public_key(key.public_key()).serial_number(1)
    made = made.not_valid_before(start).not_valid_after(start + datetime.timedelta(days=1))
    return made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def imported(key: Any, parameters: Any = None) -> Any:
    """A key as the library that signs has it."""
    if isinstance(key, str):
        return jwk.import_key(key, "oct")
    kind = {rsa.RSAPrivateKey: "RSA", ec.EllipticCurvePrivateKey: "EC"}
    name = next((name for kind, name in kind.items() if isinstance(key, kind)), "OKP")
    return jwk.JWKRegistry.import_key(private_pem(key), name, parameters)


def signed(key: Any = SECRET, algorithm: str = "HS256", header: Any = None, **claims: Any) -> str:
    """A token of Alice's that is valid for a minute, with other claims if they are given."""
    registry = JWSRegistry(algorithms=[algorithm], strict_check_header=False)
    members: dict[str, Any] = {"alg": algorithm, **(header or {})}
    said = {name: value for name, value in {**CLAIMS, **claims}.items() if value is not None}
    with_key = key if isinstance(key, jwk.OctKey) else imported(key)
    return jwt.encode(members, said, with_key, registry=registry)


def check(key: Any = SECRET, **options: Any) -> JWT:
    """A JWT whose clock stands still."""
    return JWT(key, clock=FrozenClock("2026-01-01"), **options)


def part(value: Any) -> str:
    """A part of a token."""
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def assert_refused(checker: JWT, token: str | None, match: str | None = None) -> None:
    with pytest.raises(Unauthorized, match=match) as refused:
        checker.authenticate(token)
    assert not token or token not in str(refused.value)
    assert refused.value.__cause__ is None


def test_who_shows_a_signed_token_is_the_user_in_it() -> None:
    assert check().authenticate(signed()) == Principal("alice")
    assert isinstance(check(), Authenticator)


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [(RSA_KEY, "RS256"), (RSA_KEY, "PS384"), (EC_KEY, "ES256"), (ED_KEY, "Ed25519")],
    ids=["RS256", "PS384", "ES256", "Ed25519"],
)
def test_a_public_key_may_be_given_in_each_of_its_forms(key: Any, algorithm: str) -> None:
    token = signed(key, algorithm)
    as_jwk = imported(key).as_dict(private=False)
    forms = [public_pem(key), public_pem(key).encode(), private_pem(key), f"\n {public_pem(key)}"]
    forms += [as_jwk, json.dumps(as_jwk), {"keys": [as_jwk]}, json.dumps({"keys": [as_jwk]})]
    if algorithm != "Ed25519":
        forms.append(certificate(key))
    for form in forms:
        checker = check(form, algorithms=(algorithm,))
        assert checker.authenticate(token) == Principal("alice")
        assert_refused(checker, signed())


def test_a_secret_may_be_given_in_each_of_its_forms() -> None:
    as_jwk = jwk.import_key(SECRET, "oct").as_dict()
    for form in (SECRET, SECRET.encode(), as_jwk, json.dumps(as_jwk), {"keys": [as_jwk]}):
        assert check(form).authenticate(signed()) == Principal("alice")


def test_a_token_whose_user_stands_for_everybody_is_refused() -> None:
    assert_refused(check(), signed(sub="*"), "stands for everybody")


def test_an_old_name_of_an_algorithm_is_taken_without_a_warning() -> None:
    form = json.dumps(imported(ED_KEY).as_dict(private=False))
    with pytest.warns(match="EdDSA"):
        token = signed(ED_KEY, "EdDSA")
    assert check(form, algorithms=("EdDSA",)).authenticate(token) == Principal("alice")


def test_of_a_set_the_key_that_the_token_names_is_taken() -> None:
    keys = [
        imported(EC_KEY, {"kid": "one"}),
        imported(OTHER_EC_KEY, {"kid": "two"}),
        imported(RSA_KEY),
    ]
    published = {"keys": [key.as_dict(private=False) for key in keys]}
    checker = check(published, algorithms=("ES256",))
    assert checker.authenticate(signed(EC_KEY, "ES256", {"kid": "one"})).user == "alice"
    assert checker.authenticate(signed(OTHER_EC_KEY, "ES256", {"kid": "two"})).user == "alice"
    for kid in ("two", "three", "", None):
        assert_refused(checker, signed(EC_KEY, "ES256", {} if kid is None else {"kid": kid}))
    assert_refused(checker, signed(RSA_KEY, "RS256"))


def test_a_header_may_say_more_than_we_know_but_not_that_it_matters() -> None:
    assert check().authenticate(signed(header={"nonce": "x"})) == Principal("alice")
    said = {"alg": "HS256", "crit": ["nonce"], "nonce": "x"}
    signature = signed(header={"nonce": "x"}).split(".")[2]
    assert_refused(check(), f"{part(said)}.{part(CLAIMS)}.{signature}")


@pytest.mark.parametrize("name", ["none", "None", "NONE", "nOnE", "HS257", "", None, [], {}, 5])
def test_a_token_without_a_signature_is_refused(name: Any) -> None:
    head, body = part({"alg": name, "typ": "JWT"}), part(CLAIMS)
    for signature in ("", signed().split(".")[2]):
        for checker in (check(), check(public_pem(RSA_KEY), algorithms=("RS256",))):
            assert_refused(checker, f"{head}.{body}.{signature}")
    assert_refused(check(), f"{part({})}.{body}.")


@pytest.mark.parametrize("key", [RSA_KEY, EC_KEY, ED_KEY], ids=["RSA", "EC", "Ed25519"])
def test_a_public_key_is_never_a_secret(key: Any) -> None:
    as_jwk = imported(key).as_dict(private=False)
    der = base64.b64decode("".join(public_pem(key).splitlines()[1:-1]))
    ssh = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    bare = "".join(public_pem(key).splitlines()[1:-1])
    lines = "\n".join(public_pem(key).splitlines()[1:-1])
    for form in (public_pem(key), f"x{public_pem(key)}", as_jwk, json.dumps(as_jwk), der, ssh):
        with pytest.raises(ConfigurationError):
            check(form)
    for form in (bare, lines, bare.encode()):
        with pytest.raises(ConfigurationError, match="BEGIN PUBLIC KEY"):
            check(form)
    with pytest.raises(ConfigurationError):
        check({"keys": [as_jwk]})


def test_a_token_signed_with_the_public_key_as_a_secret_is_refused() -> None:
    text = public_pem(RSA_KEY)
    secret = jwk.OctKey(text.encode(), text.encode())
    forged = signed(secret, "HS256")
    assert_refused(check(text, algorithms=("RS256",)), forged)
    published = {"keys": [imported(RSA_KEY).as_dict(private=False)]}
    assert_refused(check(published, algorithms=("RS256",)), forged)


def test_secrets_and_public_keys_do_not_mix() -> None:
    both = {"keys": [jwk.import_key(SECRET, "oct").as_dict(), imported(RSA_KEY).as_dict()]}
    for key in (SECRET, public_pem(RSA_KEY), both):
        with pytest.raises(ConfigurationError, match="one JWT for each"):
            check(key, algorithms=("HS256", "RS256"))
    assert_refused(check(both, algorithms=("RS256",)), signed())


@pytest.mark.parametrize("names", [(), "", ("none",), ("HS256", "none"), ("RS255",), (256,), None])
def test_algorithms_that_sign_nothing_are_refused(names: Any) -> None:
    with pytest.raises((ConfigurationError, TypeError)):
        check(algorithms=names)


def test_one_algorithm_may_be_given_as_text() -> None:
    assert check(public_pem(RSA_KEY), algorithms="RS256").authenticate(signed(RSA_KEY, "RS256"))


UNUSABLE: list[Any] = [
    "",
    "short",
    "x" * 31,
    b"",
    {},
    {"kty": "oct"},
    {"kty": "oct", "k": ""},
    {"kty": "oct", "k": "c2hvcnQ"},
    {"kty": "RSA", "n": 5, "e": []},
    {"keys": []},
    {"keys": [{}]},
    {"keys": "keys"},
    "{not json",
    "[]" * 3,
    "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----",
    "-----BEGIN PUBLIC KEY-----",
    "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----",
    "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQ and something else",
    None,
    5,
]


@pytest.mark.parametrize("key", UNUSABLE)
def test_a_key_that_is_weak_or_unreadable_is_refused_without_showing_it(key: Any) -> None:
    for names in (("HS256",), ("RS256",)):
        with pytest.raises(ConfigurationError) as refused:
            check(key, algorithms=names)
        assert not isinstance(key, str) or len(key) < 8 or key not in str(refused.value)


def test_a_key_of_another_kind_or_curve_is_refused_by_name() -> None:
    with pytest.raises(ConfigurationError, match="EC cannot check ES384"):
        check(public_pem(EC_KEY), algorithms=("ES256", "ES384"))
    with pytest.raises(ConfigurationError, match="RSA cannot check HS256"):
        check(public_pem(RSA_KEY))
    with pytest.raises(ConfigurationError, match="signs no token"):
        check(public_pem(x25519.X25519PrivateKey.generate()), algorithms=("Ed25519",))
    for_secrets = {**imported(RSA_KEY).as_dict(private=False), "use": "enc"}
    with pytest.raises(ConfigurationError):
        check(for_secrets, algorithms=("RS256",))


def test_a_token_is_valid_until_it_expires_and_not_after() -> None:
    clock = FrozenClock("2026-01-01")
    checker, token = JWT(SECRET, clock=clock), signed()
    clock.advance(60 + 29)
    assert checker.authenticate(token) == Principal("alice")
    clock.advance(1)
    assert_refused(checker, token, "expired")
    assert_refused(check(leeway=0), signed(exp=NOW), "expired")
    assert check(leeway=0).authenticate(signed(exp=NOW + 1)) == Principal("alice")


@pytest.mark.parametrize("never", [None, "soon", str(NOW + 60), True, [], math.nan, math.inf])
def test_a_token_that_does_not_expire_is_refused(never: Any) -> None:
    assert_refused(check(), signed(exp=never))


def test_a_token_that_is_not_yet_valid_is_refused() -> None:
    assert check().authenticate(signed(nbf=NOW + 30, iat=NOW + 30)) == Principal("alice")
    assert_refused(check(), signed(nbf=NOW + 31), "'nbf'")
    assert_refused(check(), signed(iat=NOW + 31), "'iat'")


def test_a_token_must_be_for_us() -> None:
    for ours in ("us", ("us", "them"), ["us"]):
        checker = check(audience=ours)
        assert checker.authenticate(signed(aud="us")) == Principal("alice")
        assert checker.authenticate(signed(aud=["others", "us"])) == Principal("alice")
        for others in ("others", ["others"], [], "", "u", 5, {"us": 1}):
            assert_refused(checker, signed(aud=others), "'aud'")
        assert_refused(checker, signed(), "lacks a claim")
    assert_refused(check(), signed(aud="us"), "names none")


def test_a_token_must_be_of_the_issuer() -> None:
    checker = check(issuer=("https://one.example", "https://two.example"))
    assert checker.authenticate(signed(iss="https://two.example")) == Principal("alice")
    for others in ("https://three.example", "", ["https://one.example"], 5):
        assert_refused(checker, signed(iss=others))
    assert_refused(checker, signed(), "lacks a claim")
    assert check().authenticate(signed(iss="anybody")) == Principal("alice")


def test_the_user_is_in_the_claim_that_is_named() -> None:
    by_email = check(user_claim="email")
    assert by_email.authenticate(signed(email="alice@example.com")).user == "alice@example.com"
    assert_refused(by_email, signed(), "'email'")
    for nobody in (None, "", 5, ["alice"], "a\nb", "x" * 513):
        assert_refused(check(), signed(sub=nobody))


@pytest.mark.parametrize(
    "options",
    [{"audience": ""}, {"audience": ()}, {"issuer": ""}, {"issuer": ("x", "")}, {"issuer": (5,)}],
)
def test_a_demand_that_demands_nothing_is_refused(options: Any) -> None:
    with pytest.raises(ConfigurationError, match="not empty"):
        check(**options)


@pytest.mark.parametrize("leeway", [-1, 601, math.nan])
def test_clocks_differ_by_ten_minutes_at_most(leeway: Any) -> None:
    with pytest.raises(ConfigurationError, match="seconds"):
        check(leeway=leeway)


def test_the_key_is_not_shown() -> None:
    assert repr(check()) == "JWT(<hidden>, algorithms=('HS256',))"


def test_a_token_of_another_key_or_changed_by_one_bit_is_refused() -> None:
    assert_refused(check(), signed("another-secret-that-is-long-enough-for-hs256"))
    head, body, signature = signed().split(".")
    mallory = part({**CLAIMS, "sub": "mallory"})
    assert_refused(check(), f"{head}.{mallory}.{signature}")
    assert_refused(check(), f"{head}.{body}.{'A' + signature[1:]}a")
    assert_refused(check(), f"{head}.{body}")
    assert_refused(check(), f"{head}.{body}.{signature}." + "x" * MAX_TOKEN, "longer")
    for nothing in (None, ""):
        assert_refused(check(), nothing, "a token is needed")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
HEADERS = st.dictionaries(
    st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jwk", "x5c", "zip", "enc"]), JSON
)
CHECKERS = [check(), check(public_pem(RSA_KEY), algorithms=("RS256",))]
CHECKERS.append(check({"keys": [imported(EC_KEY).as_dict(private=False)]}, algorithms=("ES256",)))


@given(st.text(max_size=80) | st.text("ABCabc012-_.=", max_size=80))
def test_no_text_is_a_token(text: str) -> None:
    for checker in CHECKERS:
        with pytest.raises(Unauthorized):
            checker.authenticate(text)


@given(HEADERS, JSON, st.sampled_from([None, "HS256", "RS256", "ES256"]), st.binary(max_size=80))
def test_no_header_gets_in_without_a_signature(
    header: dict[str, Any], body: Any, name: str | None, signature: bytes
) -> None:
    said = header if name is None else {**header, "alg": name}
    end = base64.urlsafe_b64encode(signature).rstrip(b"=").decode()
    for checker in CHECKERS:
        assert_refused(checker, f"{part(said)}.{part(body)}.{end}")


@given(JSON, st.sampled_from(["sub", "exp", "nbf", "iat", "aud", "iss", "jti"]))
def test_no_signed_claim_breaks_the_check(value: Any, name: str) -> None:
    token = jwt.encode({"alg": "HS256"}, {**CLAIMS, name: value}, imported(SECRET))
    try:
        user = check().authenticate(token).user
    except Unauthorized:
        return
    assert user == (value if name == "sub" else "alice")
