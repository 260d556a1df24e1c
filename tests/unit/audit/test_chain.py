"""The chain of digests: what a checker finds, and that it finds it first."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.audit.logs import PARENT, UID, Log, conversation, erased

from tertulia.audit import ChainChecker, Verification
from tertulia.events import Record, branch


def checked(records: list[Record], **options: Any) -> Verification:
    checker = ChainChecker.new(UID, **options)
    for record in records:
        checker.feed(record)
    return checker.finish()


def test_a_log_as_it_was_written_holds() -> None:
    log = conversation()
    found = checked(log.records)
    assert found
    assert found == Verification(
        ok=True, checked=len(log.records), head=log.row.digest.hex(), erased=0
    )


def test_an_empty_log_holds() -> None:
    assert checked([])


def test_erased_bodies_are_counted_and_the_chain_still_holds() -> None:
    log = conversation()
    records = [erased(record) if record.seq in (2, 4) else record for record in log.records]
    found = checked(records)
    assert found
    assert found.erased == 2


def test_a_fork_begins_with_its_parents_chain_up_to_its_point() -> None:
    start = branch(UID, PARENT, 40, b"p" * 32)
    log = Log(UID, start, 40)
    log.note("session.forked", {})
    log.note("app.note", {})
    checker = ChainChecker.fork(UID, PARENT, 40, b"p" * 32)
    assert all(checker.feed(record) for record in log.records)
    assert checker.finish(42, log.row.digest)
    for wrong in (
        ChainChecker.fork(UID, PARENT, 40, b"q" * 32),
        ChainChecker.fork(UID, UID, 40, b"p" * 32),
    ):
        assert not wrong.feed(log.records[0])
        assert wrong.finish().first_bad == 41


TAMPERED: list[dict[str, Any]] = [
    {"type": "app.other"},
    {"time": 1},
    {"actor": "user"},
    {"turn": 1},
    {"body": b"{}"},
    {"salt": b"x" * 16},
    {"digest": b"x" * 32},
    {"body": None, "salt": None, "body_digest": b"x" * 32},
]


@pytest.mark.parametrize("change", TAMPERED)
def test_a_change_of_any_field_is_found_where_it_is(change: dict[str, Any]) -> None:
    records = conversation().records
    records[3] = msgspec.structs.replace(records[3], **change)
    found = checked(records)
    assert not found
    assert found.first_bad == 4
    assert found.checked == 4
    assert found.reason == "event 4 is not what was written: its digest does not fit"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"body": None}, "event 4 has no body, and no digest of one"),
        ({"salt": None}, "event 4 has a body, and no salt for it"),
    ],
)
def test_what_is_missing_of_a_body_is_named(change: dict[str, Any], says: str) -> None:
    records = conversation().records
    records[3] = msgspec.structs.replace(records[3], **change)
    assert checked(records).reason == says


@given(st.data())
def test_missing_repeated_and_swapped_events_are_found(data: st.DataObject) -> None:
    records = conversation().records
    at = data.draw(st.integers(0, len(records) - 2))
    match data.draw(st.sampled_from(("missing", "twice", "swapped"))):
        case "missing":
            del records[at]
        case "twice":
            records.insert(at, records[at])
        case _:
            records[at], records[at + 1] = records[at + 1], records[at]
    found = checked(records)
    assert not found
    assert found.first_bad == at + 1


def test_a_log_that_ends_before_its_head_is_found() -> None:
    log = conversation()
    checker = ChainChecker.new(UID)
    for record in log.records[:-1]:
        checker.feed(record)
    found = checker.finish(log.row.seq, log.row.digest)
    assert found.first_bad == log.row.seq
    assert found.reason == f"the log ends at {log.row.seq - 1}, and its head says {log.row.seq}"


def test_a_head_with_another_digest_is_found() -> None:
    log = conversation()
    checker = ChainChecker.new(UID)
    for record in log.records:
        checker.feed(record)
    assert checker.finish(log.row.seq, b"x" * 32).reason == (
        f"the head is not the digest of event {log.row.seq}"
    )


def test_an_anchor_finds_truncation_and_a_log_that_was_written_anew() -> None:
    log = conversation()
    anchored = {5: log.records[4].digest}
    assert checked(log.records, anchored=anchored)
    cut = checked(log.records[:3], anchored=anchored)
    assert cut.reason == "the log ends at 3, and position 5 was anchored"
    assert cut.first_bad == 4
    anew = checked(log.records, anchored={5: b"x" * 32})
    assert anew.first_bad == 5
    assert "anchored" in (anew.reason or "")
    assert not ChainChecker.new(UID, {0: b"x" * 32}).ok
