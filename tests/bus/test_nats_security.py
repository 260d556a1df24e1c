"""Who is let in by a NATS server, and what is never shown of it."""

from __future__ import annotations

import base64
import binascii
import datetime
import ipaddress
import json
import logging
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID
from tests.bus.nats_helpers import ConfiguredServer, connection, eventually

from tertulia.bus.nats_address import parse
from tertulia.bus.nats_connection import NatsConnection
from tertulia.bus.nats_keys import UserKey
from tertulia.errors import ConfigurationError

SECRET = "s3cret/?#,@"
QUOTED = "s3cret%2F%3F%23%2C%40"


@contextmanager
def serving(folder: Path, config: str) -> Generator[str]:
    """A server with this configuration: its host and port."""
    path = folder / "nats.conf"
    path.write_text(config)
    server = ConfiguredServer(path)
    try:
        yield f"127.0.0.1:{server.port}"
    finally:
        server.close()


async def works(url: str) -> None:
    """Messages are carried."""
    heard: list[bytes] = []
    async with connection(url) as one:
        one.subscribe("a", lambda subject, data, reply: heard.append(data))
        assert one.publish("a", b"x")
        await eventually(lambda: heard)
        assert "s3cret" not in f"{one!r} {one.url}"


async def refused(url: str, caplog: pytest.LogCaptureFixture, says: str) -> None:
    """The server does not let us in, and the log says why."""
    caplog.clear()
    one = NatsConnection(url)
    with caplog.at_level(logging.DEBUG):
        one.start()
        await eventually(lambda: any(says in each for each in warnings(caplog)))
        assert not await one.ready(0.1)
        await one.close()
    told = warnings(caplog)
    assert len(set(told)) == len(told), "each reason is said once"
    assert all(url.rpartition("@")[2].partition("?")[0] in each for each in told)
    assert not any(each.exc_info for each in caplog.records)
    assert "s3cret" not in caplog.text


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the log says without being asked for more."""
    return [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]


async def test_a_user_with_the_right_password_is_let_in(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = f'authorization {{ user: "ann", password: "{SECRET}" }}'
    with serving(tmp_path, config) as host:
        await works(f"nats://ann:{QUOTED}@{host}")
        for wrong in (f"ann:{QUOTED}x@", f"{QUOTED}@", ""):
            await refused(f"nats://{wrong}{host}", caplog, "Authorization Violation")


async def test_a_token_is_given_in_either_of_two_ways(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(tmp_path, f'authorization {{ token: "{SECRET}" }}') as host:
        await works(f"nats://{host}?token={QUOTED}&name=a")
        await works(f"nats://{QUOTED}@{host}")
        await refused(f"nats://{host}?token={QUOTED}x", caplog, "Authorization Violation")


async def test_a_user_may_have_a_key(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    seed = seed_of(b"\x07" * 32)
    (tmp_path / "right.nk").write_text(f"{seed}\n")
    (tmp_path / "wrong.nk").write_text(seed_of(b"\x08" * 32))
    config = f"authorization {{ users: [ {{ nkey: {UserKey(seed).public} }} ] }}"
    with serving(tmp_path, config) as host:
        await works(f"nats://{host}?nkey={tmp_path / 'right.nk'}")
        wrong = f"nats://{host}?nkey={tmp_path / 'wrong.nk'}"
        await refused(wrong, caplog, "Authorization Violation")
        assert seed not in caplog.text


async def test_a_user_may_have_credentials_of_an_account(tmp_path: Path) -> None:
    operator, account, user = (Party(kind, number) for number, kind in enumerate("OAU", 1))
    accounts = operator.sign(account.public, {"version": 2, "type": "account", "limits": UNLIMITED})
    users = account.sign(user.public, {"version": 2, "type": "user", **UNLIMITED})
    own = operator.sign(operator.public, {"version": 2, "type": "operator"})
    config = (
        f"operator: {own}\nresolver: MEMORY\nresolver_preload: {{ {account.public}: {accounts} }}"
    )
    (tmp_path / "user.creds").write_text(
        f"-----BEGIN NATS USER JWT-----\n{users}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed}\n------END USER NKEY SEED------\n"
    )
    with serving(tmp_path, config) as host:
        await works(f"nats://{host}?creds={tmp_path / 'user.creds'}")


async def test_tls_is_checked_with_the_authority_that_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ours, other = Authority(tmp_path, "ours"), Authority(tmp_path, "other")
    cert, key = ours.issue("server")
    mine = "tls_cert={}&tls_key={}".format(*ours.issue("client"))
    config = (
        f'tls {{ cert_file: "{cert}", key_file: "{key}", ca_file: "{ours.path}", verify: true }}\n'
        f'authorization {{ user: "ann", password: "{SECRET}" }}'
    )
    with serving(tmp_path, config) as host:
        who = f"tls://ann:{QUOTED}@{host}"
        await works(f"{who}?tls_ca={ours.path}&{mine}")
        await refused(f"{who}?tls_ca={other.path}&{mine}", caplog, "certificate verify failed")
        await refused(f"{who}?{mine}", caplog, "certificate verify failed")
        await refused(f"{who}?tls_ca={ours.path}", caplog, "no connection")


async def test_a_password_is_not_sent_to_a_server_without_the_tls_that_was_asked_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trace = tmp_path / "trace"
    config = f'trace: true\nlog_file: "{trace}"'
    with serving(tmp_path, config) as host:
        for who, option in ((f"ann:{QUOTED}@", ""), ("", ""), ("", f"?token={QUOTED}")):
            await refused(f"tls://{who}{host}{option}", caplog, "does not speak TLS")
        sent = [line for line in trace.read_text().splitlines() if "CONNECT" in line]
        assert not [line for line in sent if "ann" in line or "auth_token" in line]


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("nats://", "names no NATS server"),
        ("http://me:s3cret@host", "names no NATS server"),
        ("nats://me:s3cret@", "no host and port"),
        ("nats://me:s3cret@host:port", "no host and port"),
        ("nats://me:s3/cret@host", "no host and port"),
        ("nats://me:s3cret@one,me:s3cretx@two", "the same user and password"),
        ("nats://me:s3cret@host?token=s3cret", "give one of"),
        ("nats://s3cret@host?creds=/nowhere", "path of a file"),
        ("nats://me:s3cret@host?user=x", "is no option of NATS"),
        ("nats://me:s3cret@host?name=a.b", "takes up to 64 letters"),
        ("nats://me:s3cret@host?name=a%20b", "takes up to 64 letters"),
        ("tls://me:s3cret@host?tls_ca=/dev/null", "path of a file"),
    ],
)
def test_a_wrong_address_is_refused_without_its_secrets(url: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as told:
        NatsConnection(url)
    assert "s3" not in str(told.value)


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    rubbish = tmp_path / "rubbish"
    rubbish.write_text("s3cret")
    for option in ("tls_ca", "tls_cert", "nkey", "creds"):
        with pytest.raises(ConfigurationError) as told:
            NatsConnection(f"nats://host?{option}={rubbish}")
        assert "s3cret" not in str(told.value)
    with pytest.raises(ConfigurationError, match="needs"):
        NatsConnection(f"nats://host?tls_key={rubbish}")


def test_several_servers_share_a_user() -> None:
    found = parse("nats://ann:p%2C@one,two:5000,ann:p%2C@[::1]:6000?name=app")
    assert found.servers == ("nats://one:4222", "nats://two:5000", "nats://[::1]:6000")
    assert (found.user, found.password, found.name, found.tls) == ("ann", "p,", "app", False)
    assert found.shown == "nats://one:4222,two:5000,[::1]:6000?name=app"


async def test_another_server_is_tried_where_one_cannot_be_reached(nats: str) -> None:
    async with connection(f"nats://127.0.0.1:1,{nats}"):
        pass


UNLIMITED = {"subs": -1, "data": -1, "payload": -1, "conn": -1, "imports": -1, "exports": -1}
PREFIXES = {"O": 14 << 3, "A": 0, "U": 20 << 3}


def seed_of(raw: bytes, kind: str = "U") -> str:
    """A private key as NATS writes it."""
    prefix = PREFIXES[kind]
    return encoded(bytes([18 << 3 | prefix >> 5, (prefix & 31) << 3]) + raw)


def encoded(body: bytes) -> str:
    """A key with its checksum."""
    checked = body + binascii.crc_hqx(body, 0).to_bytes(2, "little")
    return base64.b32encode(checked).decode().rstrip("=")


class Party:
    """Somebody with a key: an operator, an account or a user."""

    def __init__(self, kind: str, number: int) -> None:
        raw = bytes([number]) * 32
        self.key = Ed25519PrivateKey.from_private_bytes(raw)
        self.seed = seed_of(raw, kind)
        self.public = encoded(bytes([PREFIXES[kind]]) + self.key.public_key().public_bytes_raw())

    def sign(self, subject: str, nats: Mapping[str, object]) -> str:
        """A JWT about a party."""
        claims: dict[str, object] = {
            "iss": self.public,
            "sub": subject,
            "name": "test",
            "iat": 1,
            "nats": nats,
        }
        claims["jti"] = base64.b32encode(hashed(json.dumps(claims).encode())).decode().rstrip("=")
        parts = [part({"typ": "JWT", "alg": "ed25519-nkey"}), part(claims)]
        signature = self.key.sign(".".join(parts).encode())
        return ".".join([*parts, base64.urlsafe_b64encode(signature).decode().rstrip("=")])


def part(value: Mapping[str, object]) -> str:
    """A part of a JWT."""
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def hashed(data: bytes) -> bytes:
    """SHA-256."""
    digest = hashes.Hash(hashes.SHA256())
    digest.update(data)
    return digest.finalize()


class Authority:
    """Who signs certificates."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.path = folder / f"{name}-ca.pem"
        self._write(self.path, self._name, self._key, ca=True)

    def issue(self, name: str) -> tuple[Path, Path]:
        """A certificate for 127.0.0.1 and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        cert, path = self._folder / f"{name}.pem", self._folder / f"{name}-key.pem"
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._write(cert, subject, key, ca=False)
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return cert, path

    def _write(
        self, path: Path, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, ca: bool
    ) -> None:
        now = datetime.datetime.now(datetime.UTC)
        address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        built = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(address, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        path.write_bytes(built.public_bytes(serialization.Encoding.PEM))
