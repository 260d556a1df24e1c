"""Exported files: what their lines say, and that they can be checked alone."""

import json
from hashlib import sha256
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.audit.logs import PARENT, START, UID, Log, conversation, erased

from tertulia.audit import Exporter, Source, export_lines, verify_lines
from tertulia.errors import StoreCorrupt
from tertulia.events import branch

SESSION: dict[str, Any] = {"session_id": "s", "user_id": "u", "metadata": {"regulation": "SOC2"}}


def exported(log: Log) -> list[str]:
    return list(export_lines(Source(uid=UID), log.records, now=START, session=SESSION))


def test_every_line_says_timestamp_role_message_metadata_and_tool_calls_first() -> None:
    lines = [json.loads(line) for line in exported(conversation())]
    for line in lines:
        assert list(line)[:10] == (
            "timestamp role message metadata tool_calls seq type actor turn digest".split()
        )
    said = lines[2]
    assert said["timestamp"] == "2023-11-14T22:13:21.000001Z"
    assert said["role"] == "user"
    assert said["message"].startswith("héllo")
    assert said["metadata"] == {"a": [1, 2.5, None]}
    assert lines[3]["tool_calls"] == [{"id": "c1", "name": "find", "arguments": {"q": "x"}}]
    assert (lines[0]["role"], lines[0]["message"]) == (None, None)


def test_the_last_line_is_the_head() -> None:
    log = conversation()
    head = json.loads(exported(log)[-1])
    assert head["type"] == "head"
    assert (head["seq"], head["digest"]) == (log.row.seq, log.row.digest.hex())
    assert head["events"] == len(log.records)
    assert head["metadata"] == {"regulation": "SOC2"}
    assert head["session"] == {"session_id": "s", "user_id": "u"}


def test_a_line_has_nothing_in_it_that_a_reader_takes_for_a_line_break() -> None:
    lines = exported(conversation())
    assert "\n".join(lines).splitlines() == lines


def test_a_file_as_it_was_written_holds() -> None:
    log = conversation()
    lines = exported(log)
    found = verify_lines(lines)
    assert found
    assert found.checked == len(log.records)
    assert found.head == log.row.digest.hex()
    assert verify_lines("\r\n".join(lines) + "\n") == found
    assert verify_lines(f"{line}\n" for line in lines) == found


def test_a_file_that_was_formatted_anew_still_holds() -> None:
    lines = [json.dumps(json.loads(line), sort_keys=True) for line in exported(conversation())]
    assert verify_lines(lines)


def test_a_file_with_erased_bodies_holds_and_counts_them() -> None:
    log = conversation()
    log.records[2] = erased(log.records[2])
    found = verify_lines(exported(log))
    assert found
    assert found.erased == 1
    assert "llo" not in "".join(exported(log))


def test_an_export_of_nothing_is_its_head_alone() -> None:
    lines = exported(Log())
    assert len(lines) == 1
    assert verify_lines(lines)


def fork() -> tuple[Log, Log, Source]:
    parent = Log(PARENT)
    parent.note("session.created", {})
    parent.note("app.x", {})
    digest = parent.row.digest
    child = Log(UID, branch(UID, PARENT, 2, digest), 2)
    child.note("session.forked", {})
    child.note("app.y", {})
    return parent, child, Source(uid=UID, parent_uid=PARENT, base=2, parent_digest=digest)


def test_a_fork_is_exported_alone_or_with_what_it_inherits() -> None:
    parent, child, source = fork()
    assert verify_lines(export_lines(source, child.records, now=START))
    exporter = Exporter(Source(uid=PARENT))
    lines = [exporter.line(record) for record in parent.records]
    exporter.begin(source)
    lines += [exporter.line(record) for record in child.records]
    lines.append(exporter.head(START))
    found = verify_lines(lines)
    assert found
    assert (found.checked, found.head) == (4, child.row.digest.hex())
    stranger = verify_lines([lines[0], *lines[2:]])
    assert stranger.reason == "line 2: the log that begins here does not stand on the one before"


@pytest.mark.parametrize("gone", [0, 1, 3, -2, -1])
def test_a_line_that_is_missing_is_found(gone: int) -> None:
    lines = exported(conversation())
    del lines[gone]
    found = verify_lines(lines)
    assert not found
    assert found.reason


def test_a_file_that_was_cut_off_says_so() -> None:
    found = verify_lines(exported(conversation())[:-1])
    assert found.reason == "the file ends without its head: it was cut off"
    assert verify_lines([]).reason == found.reason


def test_what_comes_after_the_head_is_found() -> None:
    lines = exported(conversation())
    assert verify_lines([*lines, lines[-1]]).reason == "line 9: there is something after the head"


@pytest.mark.parametrize("line", ["", "[]", "nonsense", "{}", '{"seq": 1}', "\ud800", "[" * 99_999])
def test_what_is_no_line_is_found(line: str) -> None:
    lines = exported(conversation())
    lines[1] = line
    found = verify_lines(lines)
    assert not found
    assert found.first_bad == 2


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        inner = list(value.items())  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    elif isinstance(value, list):
        inner = list(enumerate(value))  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return [path, *(deep for key, item in inner for deep in paths(item, (*path, key)))]


def other_than(value: Any) -> list[Any]:
    several: list[Any] = [None, "x", 1, True, 2.0, [], {}, "00", f"{value} ", value]
    if isinstance(value, str):
        several += [value.upper(), value[:-1]]
    if isinstance(value, int):
        several += [value + 1, float(value), bool(value)]
    mine = msgspec.json.encode(value)
    return [another for another in several if msgspec.json.encode(another) != mine]


@given(st.data())
def test_tampering_with_any_field_of_any_line_is_found(data: st.DataObject) -> None:
    log = conversation()
    log.records[2] = erased(log.records[2])
    lines = exported(log)
    number = data.draw(st.integers(0, len(lines) - 1))
    line = json.loads(lines[number])
    path = data.draw(st.sampled_from(paths(line)[1:]))
    place = line
    for key in path[:-1]:
        place = place[key]
    if isinstance(place, dict) and data.draw(st.booleans()):
        del place[path[-1]]
    else:
        place[path[-1]] = data.draw(st.sampled_from(other_than(place[path[-1]])))
    lines[number] = json.dumps(line)
    assert not verify_lines(lines)


@given(st.data())
def test_a_byte_that_was_changed_is_found_where_it_matters(data: st.DataObject) -> None:
    text = "\n".join(exported(conversation()))
    at = data.draw(st.integers(0, len(text) - 1))
    changed = text[:at] + data.draw(st.characters(exclude_categories=["Cs"])) + text[at + 1 :]
    try:
        same = [json.loads(line) for line in changed.split("\n") if line.strip()] == [
            json.loads(line) for line in text.split("\n")
        ]
    except ValueError:
        same = False
    assert bool(verify_lines(changed)) == same


@pytest.mark.parametrize("number", range(9))
def test_a_field_that_was_added_or_given_twice_is_found(number: int) -> None:
    lines = exported(conversation())
    number = min(number, len(lines) - 1)
    original = lines[number]
    lines[number] = original[:-1] + ',"note":1}'
    assert not verify_lines(lines)
    lines[number] = original[:-1] + ',"role":null}'
    assert not verify_lines(lines)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"events": 3}, "the head says 3 events, and there are 7"),
        ({"seq": 3}, "the head says 3, and the last event is 7"),
        ({"note": 1}, "no head that was exported"),
        ({"timestamp": "now"}, "no head that was exported"),
    ],
)
def test_a_head_that_was_sealed_anew_must_still_fit_its_lines(
    change: dict[str, Any], says: str
) -> None:
    lines = exported(conversation())
    head = json.loads(lines[-1]) | change
    rest = {key: value for key, value in head.items() if key != "seal"}
    head["seal"] = sha256(
        json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()
    ).hexdigest()
    lines[-1] = json.dumps(head)
    assert says in (verify_lines(lines).reason or "")


def test_a_file_of_another_version_is_refused() -> None:
    lines = exported(conversation())
    lines[0] = lines[0].replace('"tertulia":1', '"tertulia":2')
    assert "version 2" in (verify_lines(lines).reason or "")


@pytest.mark.parametrize("body", [b"[]", b"\xff", b"{"])
def test_a_message_that_is_not_what_was_written_is_not_exported(body: bytes) -> None:
    log = Log()
    draft = log.draft()
    draft.add("message.added", body)
    log.apply(draft)
    with pytest.raises(StoreCorrupt, match="event 1"):
        exported(log)
