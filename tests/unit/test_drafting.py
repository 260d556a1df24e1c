"""A change in the making: places in the chain, and calls that are never parted from results."""

from __future__ import annotations

from typing import Any

import pytest

from tertulia.drafting import OUTCOME_UNKNOWN, Draft, messages_of
from tertulia.errors import InvalidInput, InvalidMessage
from tertulia.events import body_digest, genesis, header, link
from tertulia.messages import Message
from tertulia.stores.base import SessionRow

UID = b"u" * 16
CALLS = Message.assistant(tool_calls=[{"id": "x", "name": "f"}, {"id": "y", "name": "f"}])


def draft(**options: Any) -> Draft:
    row = SessionRow(
        key=1, uid=UID, app=None, id="s", user=None, seq=0, digest=genesis(UID), created=0, active=0
    )
    return Draft(row, now=5, salt=lambda: b"s" * 16, **options)


def test_events_get_their_place_and_their_link() -> None:
    made = draft()
    assert made.add("app.note", {"a": 1}, actor="app") == 1
    assert made.add("app.note", b"{}") == 2
    previous = genesis(UID)
    for record in made.records:
        assert record.body is not None
        head = header(UID, record.seq, record.type, 5, record.actor, record.turn)
        previous = link(previous, head, body_digest(b"s" * 16, record.body))
        assert record.digest == previous
    after = made.change().after
    assert (after.seq, after.digest, after.active) == (2, previous, 5)


def test_an_event_outside_a_turn_is_a_turn_of_its_own() -> None:
    made = draft()
    made.message(Message.user("a"))
    made.message(Message.user("b"))
    assert [record.turn for record in made.records] == [1, 2]
    assert made.change().after.visible == 2


def test_results_belong_to_the_turn_of_their_calls() -> None:
    made = draft()
    made.message(Message.user("a"))
    made.message(CALLS)
    made.message(Message.tool("done", "y"))
    made.message(Message.tool("done", "x"))
    made.message(Message.user("b"))
    assert [record.turn for record in made.records] == [1, 2, 2, 2, 5]
    assert made.change().after.open_calls == ()


def test_everything_in_a_turn_belongs_to_it_and_counts_when_it_closes() -> None:
    made = draft(turn=1)
    made.message(Message.user("a"))
    made.message(CALLS)
    assert {record.turn for record in made.records} == {1}
    after = made.change().after
    assert (after.visible, after.open_calls, made.added) == (0, ("x", "y"), 2)


def test_whatever_comes_while_calls_are_open_closes_them_first() -> None:
    made = draft()
    made.message(CALLS)
    made.message(Message.tool("done", "y"))
    made.message(Message.user("never mind"))
    assert [(m.role, m.tool_call_id, m.text) for m in made.messages] == [
        ("assistant", None, ""),
        ("tool", "y", "done"),
        ("tool", "x", OUTCOME_UNKNOWN),
        ("user", None, "never mind"),
    ]
    assert made.change().after.visible == 4


@pytest.mark.parametrize("before", [[], [Message.user("a")], [CALLS, Message.tool("done", "x")]])
def test_a_result_without_an_open_call_is_refused(before: list[Message]) -> None:
    made = draft()
    for message in before:
        made.message(message)
    count = len(made.records)
    with pytest.raises(InvalidMessage, match="no tool call 'x' is open"):
        made.message(Message.tool("done", "x"))
    assert len(made.records) == count


def test_an_event_that_is_too_large_is_refused_and_leaves_no_gap() -> None:
    made = draft()
    with pytest.raises(InvalidInput, match=r"the app\.note event is"):
        made.add("app.note", {"a": "x" * 1_000_001})
    assert made.add("app.note", {}) == 1


def test_messages_are_checked_before_anything_is_written() -> None:
    assert [m.text for m in messages_of([{"role": "user", "content": "a"}])] == ["a"]
    with pytest.raises(InvalidMessage):
        messages_of([{"role": "user", "content": "a"}, {"role": "nobody"}])
