"""Folding a log again: what the row and the state index should say."""

from typing import Any

import msgspec
import pytest
from tests.unit.audit.logs import UID, Log, conversation, erased

from tertulia.audit import ChainChecker, Refold, verdict
from tertulia.events import genesis
from tertulia.messages import Message

CALLS: list[dict[str, Any]] = [
    {"id": "c1", "name": "f", "arguments": {}},
    {"id": "c2", "name": "f", "arguments": {}},
]


def folded(log: Log) -> Refold:
    fold = Refold(genesis(UID))
    for record in log.records:
        fold.feed(record)
    return fold


def test_the_row_of_a_conversation_is_what_its_log_gives() -> None:
    log = conversation()
    fold = folded(log)
    assert fold.problem is None
    assert fold.differs(log.row) is None
    assert fold.state == {"n": log.row.seq}
    assert fold.state_differs([("n", log.row.seq)]) is None


def test_an_empty_log_stands_at_its_start() -> None:
    assert folded(Log()).differs(Log().row) is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"seq": 3}, "the row says seq 3, and the log gives 7"),
        ({"digest": b"x" * 32}, "the row says digest"),
        ({"open_turn": 3}, "the row says open_turn 3, and the log gives None"),
        ({"open_calls": ("c1",)}, "the row says open_calls ('c1',), and the log gives ()"),
        ({"status": "ended"}, "the row says status 'ended', and the log gives 'open'"),
    ],
)
def test_the_first_thing_in_a_row_that_does_not_fit_is_named(
    change: dict[str, Any], says: str
) -> None:
    log = conversation()
    assert says in (folded(log).differs(msgspec.structs.replace(log.row, **change)) or "")


def test_a_running_turn_is_open_and_its_state_does_not_count_yet() -> None:
    log = Log()
    turn = log.note("turn.started", {}, turn=1)
    log.note("state.set", {"scope": "session", "key": "k", "value": 1}, turn=turn)
    fold = folded(log)
    assert fold.open_turn == turn
    assert fold.state == {}


@pytest.mark.parametrize(
    ("kind", "body", "counts"),
    [
        ("turn.completed", {}, True),
        ("turn.interrupted", {}, True),
        ("turn.failed", {}, False),
        ("turn.abandoned", {"outcome": "kept"}, True),
        ("turn.abandoned", {"outcome": "hidden"}, False),
    ],
)
def test_the_state_of_a_turn_counts_when_the_turn_was_kept(
    kind: str, body: dict[str, Any], counts: bool
) -> None:
    log = Log()
    log.note("turn.started", {}, turn=1)
    log.note("state.set", {"scope": "session", "key": "k", "value": 1}, turn=1)
    log.note("state.set", {"scope": "user", "key": "u", "value": 1, "version": 1}, turn=1)
    log.note(kind, body, turn=1)
    fold = folded(log)
    assert fold.problem is None
    assert fold.open_turn is None
    assert fold.state == ({"k": 2} if counts else {})


def test_deleting_a_key_is_its_newest_entry() -> None:
    log = Log()
    log.note("state.set", {"scope": "session", "key": "k", "value": 1})
    log.note("state.deleted", {"scope": "session", "key": "k"})
    assert folded(log).state == {"k": 2}


def test_an_index_entry_that_the_log_does_not_give_is_named() -> None:
    fold = folded(conversation())
    assert fold.state_differs([("n", 3)]) == "the state index has 'n' at 3, and the log gives 7"
    assert fold.state_differs([("n", 7), ("z", 7)]) == (
        "the state index has 'z' at 7, and the log gives nothing"
    )
    assert fold.state_differs([]) == "the state index has no entry for 'n'"


def test_an_entry_whose_body_was_erased_is_believed() -> None:
    log = conversation()
    log.records[-1] = erased(log.records[-1])
    assert folded(log).state_differs([("n", 7)]) is None


def test_calls_are_open_until_each_has_its_result() -> None:
    log = Log()
    log.say(Message.assistant("", tool_calls=CALLS))
    assert folded(log).open_calls == ("c1", "c2")
    assert folded(log).differs(log.row) is None
    log.say(Message.tool("1", "c2"))
    assert folded(log).open_calls == ("c1",)
    log.say(Message.user("go on"))
    assert folded(log).open_calls == ()
    assert folded(log).problem is None
    assert folded(log).differs(log.row) is None


def test_where_a_message_was_erased_its_calls_are_unknown_until_the_next_one() -> None:
    log = Log()
    log.say(Message.assistant("", tool_calls=CALLS))
    log.say(Message.tool("1", "c1"))
    log.records[0] = erased(log.records[0])
    assert folded(log).open_calls is None
    assert folded(log).differs(log.row) is None
    log.say(Message.user("go on"))
    assert folded(log).open_calls == ()
    assert folded(log).problem is None


Facts = list[tuple[str, dict[str, Any], int]]
STRANGE: list[tuple[Facts, str]] = [
    (
        [("turn.started", {}, 1), ("app.x", {}, 2)],
        "event 2 lies inside the turn that began at 1",
    ),
    (
        [("turn.started", {}, 1), ("turn.started", {}, 2)],
        "event 2 lies inside the turn that began at 1",
    ),
    ([("turn.completed", {}, 1)], "event 1 belongs to turn 1, which is not open"),
    ([("app.x", {}, 1), ("app.x", {}, 1)], "event 2 belongs to turn 1, which is not open"),
    (
        [("message.added", {"role": "tool", "tool_call_id": "c1"}, 1)],
        "event 1 answers the tool call 'c1', which is not open",
    ),
    (
        [
            ("message.added", {"role": "assistant", "tool_calls": CALLS}, 1),
            ("message.added", {"role": "user", "content": "x"}, 1),
        ],
        "event 2 parts the tool call 'c1' from its result",
    ),
]


@pytest.mark.parametrize(("facts", "says"), STRANGE)
def test_what_no_correct_writer_writes_is_found(facts: Facts, says: str) -> None:
    log = Log()
    for kind, body, turn in facts:
        log.note(kind, body, turn)
    fold = folded(log)
    assert fold.problem == (len(facts), says)
    assert not fold.feed(log.records[-1])


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff"])
def test_a_body_that_is_no_object_is_found(body: bytes) -> None:
    log = Log()
    draft = log.draft()
    draft.add("app.x", body)
    log.apply(draft)
    assert folded(log).problem is not None


def test_a_session_is_ended_until_it_is_reopened() -> None:
    log = Log()
    log.note("session.ended", {})
    assert folded(log).ended
    log.note("session.reopened", {})
    assert not folded(log).ended


def test_a_rewind_leaves_open_calls_behind() -> None:
    log = Log()
    log.say(Message.assistant("", tool_calls=CALLS))
    draft = log.draft()
    draft.add("session.rewound", {"to": 0})
    log.apply(draft)
    assert folded(log).open_calls == ()


def test_the_verdict_names_the_chain_first_then_the_events_the_row_and_the_index() -> None:
    log = conversation()
    state = [("n", 7)]

    def judged(log: Log, row: Any, entries: list[tuple[str, int]] | None = None) -> Any:
        chain = ChainChecker.new(UID)
        for record in log.records:
            chain.feed(record)
        return verdict(chain, folded(log), row, entries)

    assert judged(log, log.row, state)
    assert judged(log, log.row)
    assert judged(log, log.row, [("n", 2)]).reason.startswith("the state index")
    assert judged(log, msgspec.structs.replace(log.row, seq=9), []).first_bad == 8
    ended = msgspec.structs.replace(log.row, status="ended")
    assert judged(log, ended, []).reason.startswith("the row says status")
    strange = Log()
    strange.note("turn.completed", {})
    assert judged(strange, ended, []).first_bad == 1
    log.records[2] = msgspec.structs.replace(log.records[2], time=5)
    broken = judged(log, ended, [])
    assert not broken
    assert broken.first_bad == 3
