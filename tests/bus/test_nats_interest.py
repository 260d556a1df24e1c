"""Who listens to what elsewhere, as it is announced."""

from __future__ import annotations

from tertulia.bus.nats_interest import (
    MAX_CLIENTS,
    MAX_PEERS,
    SILENT,
    Announcement,
    Listening,
    Peers,
)

ONE, TWO = b"bus-one-", b"bus-two-"


def listening(bus: bytes, *clients: str) -> Listening:
    """A bus where somebody listens to these."""
    made = Listening(bus)
    made.change(set(clients))
    return made


def test_what_changes_is_said_once() -> None:
    one, peers = Listening(ONE), Peers()
    assert peers.hear(one.everything(), 0)
    assert one.change(set()) is None
    for clients in ({"a"}, {"a", "b"}, {"b", "c"}, {"*"}, {"c"}, set[str]()):
        said = one.change(clients)
        assert said is not None
        assert peers.hear(said, 0)
        assert one.change(clients) is None
        for client in "abc":
            assert peers.of(client) == ((ONE,) if clients & {client, "*"} else ())
            assert one.has(client) == bool(clients & {client, "*"})


def test_who_missed_a_change_sees_so_and_is_told_everything() -> None:
    one, peers = listening(ONE, "a"), Peers()
    first = one.nothing_new()
    assert not peers.hear(first, 0)
    assert peers.hear(one.everything(), 0)
    assert peers.hear(first, 0)
    one.change({"b"})
    missed = one.change({"b", "c"})
    assert missed is not None
    assert not peers.hear(missed, 0)
    assert not peers.hear(one.nothing_new(), 0)
    assert peers.of("a") == (ONE,)
    assert peers.hear(one.everything(), 0)
    assert (peers.of("a"), peers.of("b"), peers.of("c")) == ((), (ONE,), (ONE,))


def test_a_bus_that_is_silent_or_ends_is_forgotten() -> None:
    peers = Peers()
    peers.hear(listening(ONE, "a", "b").everything(), 0)
    peers.hear(listening(TWO, "a").everything(), 5)
    peers.hear(listening(TWO, "*").everything(), 5)
    assert set(peers.of("a")) == {ONE, TWO}
    peers.forget_silent(SILENT)
    assert len(peers) == 2
    peers.forget_silent(SILENT + 1)
    assert (peers.of("a"), peers.everyone) == ((TWO,), (TWO,))
    peers.hear(listening(TWO).end(), 6)
    assert (len(peers), peers.of("a"), peers.everyone) == (0, (), ())


def test_one_that_listens_to_very_many_gets_everything() -> None:
    one, peers = Listening(ONE), Peers()
    many = {str(number) for number in range(MAX_CLIENTS + 1)}
    for clients, everyone in ((many, True), (many - {"0"}, False), (many, True)):
        said = one.change(clients)
        assert said is not None
        peers.hear(one.everything(), 0)
        assert peers.of("1") == (ONE,)
        assert peers.of("0") == ((ONE,) if everyone else ())
        assert len(one.everything().added) <= MAX_CLIENTS * 8


def test_what_is_remembered_is_bounded() -> None:
    peers = Peers()
    for number in range(MAX_PEERS + 10):
        peers.hear(Announcement(number.to_bytes(8, "big"), 1, 0, everyone=True), 0)
    assert len(peers) == len(peers.everyone) == MAX_PEERS
