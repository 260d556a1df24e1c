"""Which addresses are this machine, which pages may connect, and by which names."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tertulia.server.origins import host_allowed, is_loopback, origin_allowed

LABEL = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=8)
NAMES = st.lists(LABEL, min_size=2, max_size=4).map(".".join).filter(lambda name: name[-1] > "9")
PORTS = st.integers(1, 65535)
NOISE = st.text("ab.:/@[]0123456789 \t\r\n\x00#?%\\-_*é\u212a", max_size=30)


@given(st.ip_addresses(v=4))
def test_of_four_numbers_those_that_begin_with_127_are_loopback(
    address: ipaddress.IPv4Address,
) -> None:
    assert is_loopback(str(address)) == str(address).startswith("127.")
    assert is_loopback(f"::ffff:{address}") == str(address).startswith("127.")


@given(st.ip_addresses(v=6))
def test_of_the_long_addresses_one_is_loopback(address: ipaddress.IPv6Address) -> None:
    if address.ipv4_mapped is None:
        assert is_loopback(str(address)) == (int(address) == 1)
        assert is_loopback(f"[{address.exploded}]") == (int(address) == 1)


@given(NAMES)
def test_no_name_but_localhost_is_loopback(name: str) -> None:
    assert is_loopback("localhost")
    assert is_loopback("Localhost.")
    assert not is_loopback(name)
    assert not is_loopback(f"localhost.{name}")
    assert not is_loopback(f"127.0.0.1.{name}")


@pytest.mark.parametrize("host", ["", "*", "0", "0.0.0.0", "::", "127.1", "2130706433", "fd"])
def test_what_may_be_all_addresses_is_not_loopback(host: str) -> None:
    assert not is_loopback(host)


def test_a_socket_in_the_file_system_is_loopback() -> None:
    assert is_loopback("/run/tertulia.sock")
    assert is_loopback("unix:/run/tertulia.sock")


@given(NAMES, PORTS)
def test_a_page_of_the_same_host_and_port_may_connect(name: str, port: int) -> None:
    assert origin_allowed(f"https://{name}:{port}", f"{name.upper()}:{port}")
    assert origin_allowed(f"https://{name}", f"{name}:443")
    assert origin_allowed(f"https://{name}", name)
    assert origin_allowed(f"http://{name}:80", name)
    assert origin_allowed(f"http://{name}.", name)


@given(NAMES, NAMES, PORTS)
def test_a_page_of_another_host_or_port_may_not(name: str, other: str, port: int) -> None:
    if name != other:
        assert not origin_allowed(f"https://{other}", name)
        assert not origin_allowed(f"https://{name}.{other}", name)
        assert not origin_allowed(f"https://{other}.{name}", name)
        assert not origin_allowed(f"https://{name}@{other}", name)
    if port != 443:
        assert not origin_allowed(f"https://{name}:{port}", name)
    assert not origin_allowed(f"http://{name}", f"{name}:443")


@given(st.ip_addresses(v=6), PORTS)
def test_a_long_address_is_the_same_however_it_is_written(
    address: ipaddress.IPv6Address, port: int
) -> None:
    assert origin_allowed(f"http://[{address.exploded}]:{port}", f"[{address.compressed}]:{port}")


def test_without_an_origin_it_is_no_page() -> None:
    assert origin_allowed(None, "example.com")
    assert origin_allowed(None, None)


@pytest.mark.parametrize("origin", ["null", "", "example.com", "https://", "//example.com", "*"])
def test_an_origin_that_says_nothing_is_refused(origin: str) -> None:
    assert not origin_allowed(origin, "example.com")
    assert not origin_allowed(origin, None)


def test_pages_of_this_machine_may_connect_from_any_port() -> None:
    for page in ("http://localhost:3000", "http://127.0.0.1:3000", "http://[::1]"):
        assert origin_allowed(page, "127.0.0.1:8080")
        assert origin_allowed(page, "localhost:8080")
        assert not origin_allowed(page, "example.com:8080")
    assert not origin_allowed("http://localhost.evil.example:8080", "localhost:8080")


def test_origins_that_are_listed_may_connect_and_no_other() -> None:
    listed = ("https://app.example.com", "https://Other.example/")
    assert origin_allowed("https://app.example.com", "api.example.com", listed)
    assert origin_allowed("https://other.example", "api.example.com", listed)
    assert origin_allowed("https://api.example.com", "api.example.com", listed)
    assert not origin_allowed("http://app.example.com", "api.example.com", listed)
    assert not origin_allowed("https://app.example.com.evil.example", "api.example.com", listed)
    assert not origin_allowed("null", "api.example.com", listed)
    assert origin_allowed("https://app.example.com", "api.example.com", listed[0])
    assert origin_allowed("null", "api.example.com", "*")
    assert origin_allowed("null", "api.example.com", ("*",))


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8080", "LocalHost", "127.0.0.1:8080", "[::1]:8080", "[::1]"]
)
def test_we_may_be_called_by_the_names_of_loopback(host: str) -> None:
    assert host_allowed(host)
    assert host_allowed(host, ("agents.example.com",))


@given(NAMES, PORTS)
def test_a_page_whose_name_was_made_to_point_here_does_not_get_in(name: str, port: int) -> None:
    host = f"{name}:{port}"
    assert origin_allowed(f"http://{host}", host)
    assert not host_allowed(host)
    assert not host_allowed(f"localhost.{host}")
    assert not host_allowed(f"127.0.0.1.{host}")
    assert host_allowed(host, (name.upper(),))
    assert host_allowed(host, name)
    assert host_allowed(host, "*")


@pytest.mark.parametrize(
    "host",
    [
        None,
        "",
        ":8080",
        "localhost:",
        "localhost:8080:9",
        "evil.example@localhost",
        "localhost@evil.example",
        "localhost/evil.example",
        "localhost\n",
        "localhost, evil.example",
        "::1",
        "[::1",
        "[::1]x",
        "[127.0.0.1]",
        "\u2113ocalhost",
        "127.0.0.\u0661",
    ],
)
def test_a_host_that_cannot_be_read_is_refused(host: str | None) -> None:
    assert not host_allowed(host)
    assert not host_allowed(host, ("evil.example",))


@given(NOISE, NOISE, NOISE)
def test_no_header_breaks_the_reading_and_noise_opens_nothing(
    origin: str, host: str, listed: str
) -> None:
    if host_allowed(host):
        name = host.rsplit(":", 1)[0] if host[-1] != "]" else host
        assert is_loopback(name) or is_loopback(host)
    assert not origin_allowed(f"https://evil.example{origin}", "example.com", (f"-{listed}",))
    origin_allowed(origin, host)
