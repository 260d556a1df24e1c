"""Events: their closed set of types, and the chain of digests."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tertulia import events
from tertulia.errors import InvalidInput
from tertulia.events import Event, body_digest, branch, check_type, genesis, header, link

UID = b"u" * 16


def test_every_type_of_the_set_has_its_meaning() -> None:
    for kind, meaning in events.EVENT_TYPES.items():
        assert check_type(kind) == kind
        assert meaning
        assert meaning[0].islower()


@pytest.mark.parametrize("kind", ["app.note", "app.a.b", "app." + "x" * 60])
def test_applications_name_their_own_types(kind: str) -> None:
    assert check_type(kind) == kind


@pytest.mark.parametrize(
    "kind", ["", "note", "message.deleted", "app", "app." + "x" * 61, "app.a\0b"]
)
def test_other_types_do_not_exist(kind: str) -> None:
    with pytest.raises(InvalidInput, match=r"app\.<name>"):
        check_type(kind)


def test_a_link_depends_on_everything_before_and_in_it() -> None:
    head = header(UID, 1, "app.note", 5, "app", 1)
    of_body = body_digest(b"s" * 16, b"{}")
    digest = link(genesis(UID), head, of_body)
    others = [
        link(genesis(b"v" * 16), head, of_body),
        link(branch(UID, UID, 0, genesis(UID)), head, of_body),
        link(genesis(UID), header(UID, 2, "app.note", 5, "app", 1), of_body),
        link(genesis(UID), header(UID, 1, "app.other", 5, "app", 1), of_body),
        link(genesis(UID), header(UID, 1, "app.note", 6, "app", 1), of_body),
        link(genesis(UID), header(UID, 1, "app.note", 5, "user", 1), of_body),
        link(genesis(UID), header(UID, 1, "app.note", 5, "app", 2), of_body),
        link(genesis(UID), head, body_digest(b"t" * 16, b"{}")),
        link(genesis(UID), head, body_digest(b"s" * 16, b"[]")),
    ]
    assert len({digest, *others}) == len(others) + 1
    assert len(digest) == events.DIGEST_BYTES


@given(st.integers(0, 2**62), st.integers(0, 2**62), st.integers(0, 2**62))
def test_no_two_headers_are_the_same_bytes(seq: int, time: int, turn: int) -> None:
    mine = header(UID, seq, "app.a", time, "app", turn)
    assert mine != header(UID, seq + 1, "app.a", time, "app", turn)
    assert mine != header(UID, seq, "app.a", time + 1, "app", turn)
    assert mine != header(UID, seq, "app.a", time, "app", turn + 1)


def test_an_event_is_read_by_attribute_and_by_key() -> None:
    event = Event("s", 3, "app.note", 1_700_000_000_000_000, "app", 3, {"a": 1}, "00")
    assert event["seq"] == event.seq == 3
    assert event["timestamp"] == event.timestamp == "2023-11-14T22:13:20.000000Z"
    assert event.moment.isoformat() == "2023-11-14T22:13:20+00:00"
    assert msgspec.json.decode(msgspec.json.encode(event.to_dict())) == event.to_dict()
    with pytest.raises(KeyError):
        _ = event["nothing"]
