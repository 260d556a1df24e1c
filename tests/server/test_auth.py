"""Who may connect with a static token, where a token is found, and what a server must have."""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import quote, quote_plus, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tertulia.errors import AgentError, ConfigurationError, Unauthorized
from tertulia.server.auth import MAX_TOKEN, Authenticator, Principal, Token, resolve, token_of

VISIBLE = st.characters(min_codepoint=0x21, max_codepoint=0x7E)
TOKENS = st.text(VISIBLE, min_size=8, max_size=60)

EVERYWHERE = ["0.0.0.0", "::", "", "192.168.1.5", "example.com", "::ffff:10.0.0.1"]
HERE = ["127.0.0.1", "127.8.9.1", "::1", "[::1]", "localhost", "LOCALHOST", "/run/t.sock"]


@pytest.fixture(autouse=True)
def _silent_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TERTULIA_AUTH", raising=False)
    monkeypatch.delenv("TERTULIA_TOKEN", raising=False)


def test_who_shows_the_token_is_let_in_as_its_user() -> None:
    assert Token("correct horse".replace(" ", "-")).authenticate("correct-horse").user == "shared"
    assert Token("correct-horse", user="alice").authenticate("correct-horse").user == "alice"


def test_each_token_has_its_user() -> None:
    tokens = Token({"first-secret": "alice", "second-secret": "bob", "third-secret": "alice"})
    assert tokens.authenticate("first-secret") == Principal("alice")
    assert tokens.authenticate("second-secret") == Principal("bob")
    assert tokens.authenticate("third-secret") == Principal("alice")


def test_nobody_can_be_the_user_that_stands_for_everybody() -> None:
    for made in (lambda: Token("correct-horse", user="*"), lambda: Token({"correct-horse": "*"})):
        with pytest.raises(ConfigurationError, match="stands for everybody"):
            made()
    with pytest.raises(Unauthorized, match="stands for everybody"):
        Principal("*")


@pytest.mark.parametrize("shown", [None, ""])
def test_without_a_token_one_is_told_how_to_send_it(shown: str | None) -> None:
    with pytest.raises(Unauthorized, match=r"Authorization: Bearer.*\?token=.*system\.init"):
        Token("correct-horse").authenticate(shown)


@given(TOKENS, st.text())
def test_no_other_text_is_the_token_and_the_refusal_does_not_repeat_it(
    token: str, shown: str
) -> None:
    tokens = Token(token)
    if shown == token:
        assert tokens.authenticate(shown) == Principal("shared")
        return
    with pytest.raises(Unauthorized) as refused:
        tokens.authenticate(shown)
    assert token not in str(refused.value)
    if len(shown) >= 8:
        assert shown not in str(refused.value)


def test_a_refusal_can_be_caught_as_ours_and_as_a_permission() -> None:
    with pytest.raises(PermissionError) as refused:
        Token("correct-horse").authenticate("wrong-horse")
    assert isinstance(refused.value, AgentError)


def test_half_a_character_and_an_endless_token_are_refused_too() -> None:
    for shown in ("\ud800" * 9, "x" * (MAX_TOKEN + 1)):
        with pytest.raises(Unauthorized):
            Token("correct-horse").authenticate(shown)


@given(st.dictionaries(TOKENS, st.sampled_from(["alice", "bob"]), min_size=1, max_size=4))
def test_tokens_are_neither_shown_nor_kept(users: dict[str, str]) -> None:
    tokens = Token(users)
    inside = repr(tokens) + repr([getattr(tokens, name) for name in Token.__slots__])
    assert not [each for each in users if each in inside]
    assert all(tokens.authenticate(each).user == user for each, user in users.items())


@pytest.mark.parametrize(
    "unusable",
    ["", "1234567", "with space", "end-of-line\n", "contraseña", "x" * (MAX_TOKEN + 1), 12345678],
)
def test_a_token_that_is_weak_or_cannot_be_sent_is_refused_without_showing_it(
    unusable: Any,
) -> None:
    for given_as in (unusable, {unusable: "alice"}):
        with pytest.raises(ConfigurationError) as refused:
            Token(given_as)
        assert not unusable or str(unusable) not in str(refused.value)


def test_a_mapping_names_its_users_itself() -> None:
    with pytest.raises(ConfigurationError, match="leave out user="):
        Token({"correct-horse": "alice"}, user="bob")
    with pytest.raises(ConfigurationError, match="no token"):
        Token({})
    for nobody in ("", "a\nb", None):
        with pytest.raises(ConfigurationError, match="user of a token"):
            Token({"correct-horse": nobody})  # pyright: ignore[reportArgumentType]


def test_the_token_of_trusted_code_has_no_user_and_is_nobody_elses() -> None:
    token = Token("correct-horse", trusted="battery-staple")
    assert token.authenticate("correct-horse").user == "shared"
    assert token.authenticate("battery-staple").user is None
    for bad in ("correct-horse", "short"):
        with pytest.raises(ConfigurationError):
            Token("correct-horse", trusted=bad)


@pytest.mark.parametrize("host", HERE)
def test_on_loopback_nobody_needs_a_token(host: str, caplog: pytest.LogCaptureFixture) -> None:
    assert resolve(None, host) is None
    assert resolve("off", host) is None
    assert caplog.records == []


@pytest.mark.parametrize("host", EVERYWHERE)
def test_elsewhere_a_server_without_a_token_does_not_start(host: str) -> None:
    with pytest.raises(ConfigurationError, match=r"TERTULIA_TOKEN.*127\.0\.0\.1.*TERTULIA_AUTH"):
        resolve(None, host)


@pytest.mark.parametrize("host", EVERYWHERE)
@pytest.mark.parametrize("way", ["argument", "environment"])
def test_elsewhere_off_is_said_loudly(
    host: str, way: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if way == "environment":
        monkeypatch.setenv("TERTULIA_AUTH", "off")
    assert resolve("off" if way == "argument" else None, host) is None
    [record] = caplog.records
    assert (record.name, record.levelno) == ("tertulia.server", logging.WARNING)
    assert "AUTHENTICATION IS OFF" in record.getMessage()


@pytest.mark.parametrize("host", HERE + EVERYWHERE)
def test_an_argument_goes_before_the_environment(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = Token("correct-horse")
    monkeypatch.setenv("TERTULIA_AUTH", "off")
    assert resolve(tokens, host) is tokens
    monkeypatch.delenv("TERTULIA_AUTH")
    monkeypatch.setenv("TERTULIA_TOKEN", "from-the-environment")
    assert resolve(tokens, host) is tokens
    assert resolve("off", host) is None


@pytest.mark.parametrize("host", HERE + EVERYWHERE)
def test_a_token_of_the_environment_is_needed_on_loopback_too(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERTULIA_TOKEN", "from-the-environment")
    found = resolve(None, host)
    assert found is not None
    assert found.authenticate("from-the-environment") == Principal("shared")
    with pytest.raises(Unauthorized):
        found.authenticate("correct-horse")


def test_an_environment_that_contradicts_itself_or_is_misread_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERTULIA_TOKEN", "short")
    with pytest.raises(ConfigurationError, match="at least 8"):
        resolve(None, "127.0.0.1")
    monkeypatch.setenv("TERTULIA_TOKEN", "from-the-environment")
    monkeypatch.setenv("TERTULIA_AUTH", "off")
    with pytest.raises(ConfigurationError, match="unset one"):
        resolve(None, "127.0.0.1")
    monkeypatch.setenv("TERTULIA_AUTH", "put-here-by-mistake")
    with pytest.raises(ConfigurationError, match="TERTULIA_TOKEN") as refused:
        resolve(None, "127.0.0.1")
    assert "mistake" not in str(refused.value)


def test_an_empty_variable_is_as_if_it_were_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERTULIA_AUTH", "")
    monkeypatch.setenv("TERTULIA_TOKEN", "")
    assert resolve(None, "127.0.0.1") is None
    with pytest.raises(ConfigurationError):
        resolve(None, "0.0.0.0")


def test_a_bare_text_is_not_taken_for_a_token_nor_shown() -> None:
    for mistaken in ("correct-horse", "OFF", "none", True):
        with pytest.raises(ConfigurationError, match="Token") as refused:
            resolve(mistaken, "127.0.0.1")  # pyright: ignore[reportArgumentType]
        assert "horse" not in str(refused.value)


def test_an_authenticator_of_ones_own_is_taken() -> None:
    class Guests:
        def authenticate(self, token: str | None) -> Principal:
            return Principal(token or "guest")

    found = resolve(Guests(), "0.0.0.0")
    assert isinstance(found, Authenticator)
    assert found.authenticate(None) == Principal("guest")


@given(TOKENS, st.sampled_from(["Bearer ", "bearer ", "BEARER   ", " Bearer\t"]))
def test_a_token_is_read_from_the_header(token: str, scheme: str) -> None:
    header = (scheme + token).encode()
    assert token_of([(b"host", b"x"), (b"authorization", header)], b"") == token
    assert token_of([(b"Authorization", header)], b"token=another") == token


@given(TOKENS, st.sampled_from([quote, quote_plus]), st.booleans())
def test_a_token_is_read_from_the_query(token: str, spelled: Any, first: bool) -> None:
    pair = f"token={spelled(token, safe='')}"
    query = f"{pair}&after=3" if first else f"session_id=s&{pair}"
    assert token_of([], query.encode()) == token


def test_another_scheme_is_passed_over_and_of_two_the_first_is_taken() -> None:
    basic = (b"authorization", b"Basic YWxpY2U6c2VjcmV0")
    assert token_of([basic], b"") is None
    assert token_of([basic], b"token=from-query") == "from-query"
    assert token_of([basic, (b"authorization", b"Bearer from-header")], b"") == "from-header"
    assert token_of([], b"token=first&token=second") == "first"
    for nothing in (b"Bearer", b"Bearer ", b"Bearer two words", b"", b"correct-horse"):
        assert token_of([(b"authorization", nothing)], b"session_id=s&token=") is None


@given(
    st.lists(st.tuples(st.sampled_from([b"authorization", b"host", b"x"]), st.binary())),
    st.binary(),
)
def test_no_header_and_no_query_breaks_the_reading(
    headers: list[tuple[bytes, bytes]], query: bytes
) -> None:
    found = token_of(headers, query)
    if found is not None:
        with pytest.raises(Unauthorized):
            Token("correct-horse-battery").authenticate(found)


@given(TOKENS, st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3))
def test_what_a_client_encodes_is_what_is_read(token: str, others: dict[str, str]) -> None:
    others.pop("token", None)
    assert token_of([], urlencode({**others, "token": token}).encode()) == token
