"""Events and messages to bytes and back."""

from __future__ import annotations

from typing import Any

import pytest

from tertulia import codec
from tertulia.errors import HistoryErased, InvalidInput, StoreCorrupt
from tertulia.events import MAX_BODY, MESSAGE_ADDED, Record
from tertulia.messages import Message


def record(body: bytes | None, kind: str = MESSAGE_ADDED) -> Record:
    return Record(4, kind, 9, "user", 4, body, b"s" * 16, b"d" * 32)


def test_a_message_comes_back_with_its_place() -> None:
    message = Message.user("ñandú", metadata={"k": [1]})
    found = codec.message_of(record(codec.encode(message)), "s")
    assert (found.text, found.metadata) == ("ñandú", {"k": [1]})
    assert (found.seq, found.time) == (4, 9)
    assert found.id
    assert codec.message_of(record(codec.encode(message)), "s").id == found.id


def test_an_id_that_a_message_has_is_kept() -> None:
    message = Message.user("x", id="mine")
    assert codec.message_of(record(codec.encode(message)), "s").id == "mine"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"role": "nobody"}', b"\xff", b"5"])
def test_a_message_that_is_not_what_was_written_is_reported(body: bytes) -> None:
    with pytest.raises(StoreCorrupt, match="'s': the message at 4"):
        codec.message_of(record(body), "s")


def test_a_message_that_was_erased_is_told_apart_from_a_corrupt_one() -> None:
    with pytest.raises(HistoryErased, match="at 4 was erased"):
        codec.message_of(record(None), "s")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"5"])
def test_an_event_that_is_not_what_was_written_is_reported(body: bytes) -> None:
    with pytest.raises(StoreCorrupt, match="event 4"):
        codec.event_of(record(body), "s")


def test_an_event_whose_body_was_erased_has_none() -> None:
    event = codec.event_of(record(None), "s")
    assert event.body is None
    assert event.digest == (b"d" * 32).hex()
    assert codec.body_of(record(None)) == {}
    assert codec.body_of(record(b'{"a": 1}')) == {"a": 1}


@pytest.mark.parametrize("value", ["\ud800", {"a": "\udfff"}, object(), {"a": {1}.__iter__()}])
def test_what_is_no_json_is_refused(value: Any) -> None:
    with pytest.raises(InvalidInput, match="it cannot be stored"):
        codec.encode(value, "it")


def test_what_is_too_large_is_refused() -> None:
    assert len(codec.encode("x" * (MAX_BODY - 2))) == MAX_BODY
    with pytest.raises(InvalidInput, match="it is 1,000,001 bytes; at most 1,000,000"):
        codec.encode("x" * (MAX_BODY - 1), "it")


def test_bytes_that_are_no_json_are_reported() -> None:
    assert codec.decode(b"[1]", "it") == [1]
    for wrong in (b"", b"{", b"\xff"):
        with pytest.raises(StoreCorrupt, match="it is not what was written"):
            codec.decode(wrong, "it")
