"""What a client was told over many connections is told once, as if there had been one."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tertulia.client.merging import Merger
from tertulia.wire.events import (
    AgentLog,
    AgentReady,
    LiveEvent,
    ResponseChunk,
    ResponseEnd,
    ResponseStart,
)

Answers = st.lists(st.lists(st.sampled_from(["a", "ab", "b c ", "ü"]), max_size=4), max_size=4)


def told_live(answers: Sequence[Sequence[str]]) -> list[LiveEvent]:
    """What a client hears that is never cut off: answers, and a note after each."""
    events: list[LiveEvent] = []
    for number, pieces in enumerate(answers):
        name, offset = f"turn-{number}", 0
        events.append(ResponseStart(request_id=name))
        for piece in pieces:
            events.append(ResponseChunk(text=piece, request_id=name, offset=offset))
            offset += len(piece)
        events.append(ResponseEnd(request_id=name, seq=10 * number + 5))
        events.append(AgentLog(name=f"note {number}", seq=10 * number + 7))
    return events


def told_again(events: Sequence[LiveEvent], after: int) -> list[LiveEvent]:
    """What a server says to a client that comes back: what it missed, then the text so far."""
    told: list[LiveEvent] = []
    texts: dict[str | None, str] = {}
    for event in events:
        if isinstance(event, ResponseStart):
            texts[event.request_id] = ""
        elif isinstance(event, ResponseChunk):
            texts[event.request_id] += event.text
        elif isinstance(event, ResponseEnd):
            text = texts.pop(event.request_id)
            if (event.seq or 0) > after:
                told += [*begun(event.request_id, text), event]
        elif (event.seq or 0) > after:
            told.append(event)
    for name, text in texts.items():
        told += begun(name, text)
    return told


def begun(name: str | None, text: str) -> list[LiveEvent]:
    start = ResponseStart(request_id=name, resumed=True)
    return [start, ResponseChunk(text=text, request_id=name, offset=0)] if text else [start]


class Reader:
    """Reads events as the protocol says, and objects to what does not fit."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self._texts: dict[str | None, str] = {}

    def read(self, event: LiveEvent) -> None:
        if isinstance(event, ResponseStart):
            self._texts[event.request_id] = ""
        elif isinstance(event, ResponseChunk):
            assert event.offset == len(self._texts[event.request_id])
            self._texts[event.request_id] += event.text
        elif isinstance(event, ResponseEnd):
            self.said.append(f"{event.request_id}: {self._texts.pop(event.request_id)}")
        else:
            assert isinstance(event, AgentLog)
            self.said.append(event.name)


@given(Answers, st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=4))
def test_cuts_at_any_point_change_nothing(
    answers: list[list[str]], cuts: list[tuple[int, int]]
) -> None:
    events = told_live(answers)
    merger, reader = Merger(), Reader()
    merger.connected(AgentReady(seq=0))
    starts: list[ResponseStart] = []
    stream, at = list(events), 0
    for heard, missed in [*cuts, (len(events) + 100, 0)]:
        for event in stream[:heard]:
            for new in merger.take(event):
                reader.read(new)
                starts += [new] if isinstance(new, ResponseStart) else []
        at = max(at, min(len(events), at + heard + missed))
        after = merger.seq or 0
        merger.connected(AgentReady(seq=after, resumed=True))
        stream = [*told_again(events[:at], after), *events[at:]]
    assert reader.said == [
        line
        for number, pieces in enumerate(answers)
        for line in (f"turn-{number}: {''.join(pieces)}", f"note {number}")
    ]
    assert len(starts) == len({start.request_id for start in starts})


@given(st.text("ab", max_size=6), st.lists(st.text("ab", min_size=1, max_size=3), max_size=4))
def test_an_answer_that_is_given_in_other_words_begins_anew(first: str, other: list[str]) -> None:
    merger, reader = Merger(), Reader()
    events = [*begun("x", first)]
    again: list[LiveEvent] = [ResponseStart(request_id="x", resumed=True)]
    again += [ResponseChunk(text=piece, request_id="x") for piece in other]
    for event in [*events, *again, ResponseEnd(request_id="x", seq=3)]:
        for new in merger.take(event):
            reader.read(new)
    assert reader.said == [f"x: {''.join(other)}"]


def test_a_position_that_came_is_not_taken_again_on_the_next_connection() -> None:
    merger = Merger()
    merger.connected(AgentReady(seq=3))
    note = AgentLog(name="n", seq=5)
    assert list(merger.take(note)) == [note]
    merger.connected(AgentReady(seq=5, resumed=True))
    assert list(merger.take(note)) == []


def test_before_anything_came_the_position_is_that_of_the_server() -> None:
    merger = Merger()
    merger.connected(AgentReady(seq=7))
    assert merger.seq == 7


def test_a_log_that_was_made_anew_is_read_from_its_beginning() -> None:
    merger = Merger(after=50)
    merger.connected(AgentReady(seq=0, resumed=True))
    note = AgentLog(name="n", seq=2)
    assert list(merger.take(note)) == [note]
    assert merger.seq == 2


def test_an_answer_that_has_ended_is_not_told_again() -> None:
    merger = Merger()
    told = [*begun("x", "yes"), ResponseEnd(request_id="x")]
    assert sum(len(list(merger.take(event))) for event in told) == 3
    assert sum(len(list(merger.take(event))) for event in told) == 0


def of(request: str, *events: LiveEvent) -> list[LiveEvent]:
    return [replace(event, metadata={"request": request}) for event in events]


def test_an_answer_that_has_ended_goes_on_for_another_request() -> None:
    merger = Merger()
    told = [*begun("x", "yes"), ResponseEnd(request_id="x")]
    for request, new in (("r1", 3), ("r1", 0), ("r2", 3), ("r2", 0)):
        assert sum(len(list(merger.take(event))) for event in of(request, *told)) == new


def test_an_answer_that_waits_for_an_approval_may_go_on_for_the_same_request() -> None:
    merger = Merger()
    waits = AgentLog(name="approval.requested", seq=4)
    first = [*begun("x", "one moment"), ResponseEnd(request_id="x", seq=5)]
    whole = [*begun("x", "one moment, done"), ResponseEnd(request_id="x", seq=9)]
    told = [new for event in of("r1", waits, *first, *whole) for new in merger.take(event)]
    assert [type(event) for event in told] == [
        AgentLog,
        *[ResponseStart, ResponseChunk, ResponseEnd] * 2,
    ]
    assert list(merger.take(of("r1", whole[0])[0])) == []
