"""What was sent is sent again until the server has it, and a request until it is answered."""

from __future__ import annotations

import pytest

from tertulia.client.asking import Answer
from tertulia.client.outbox import SIZE, Outbox
from tertulia.errors import LiveError
from tertulia.wire.events import (
    AgentErrorEvent,
    LiveEvent,
    LLMRequest,
    ResponseChunk,
    ResponseEnd,
    ResponseStart,
    TranscriptUpdate,
    UserInterrupt,
    UserJoined,
    UserStartedSpeaking,
)


def said(number: int) -> TranscriptUpdate:
    return TranscriptUpdate(role="user", content="hello", id=f"t{number}")


def asked(number: int) -> LLMRequest:
    return LLMRequest(id=f"r{number}")


def filled(*events: LiveEvent) -> Outbox:
    outbox = Outbox()
    for event in events:
        outbox.add(event)
    return outbox


def ids(outbox: Outbox) -> list[str | None]:
    return [event.id for event in outbox.again()]


def test_what_the_server_has_is_not_sent_again_but_requests_are() -> None:
    outbox = filled(UserInterrupt(id="i"), said(1), asked(1), said(2), asked(2))
    outbox.confirm("t1")
    assert ids(outbox) == ["r1", "t2", "r2"]
    outbox.confirm("t2")
    assert ids(outbox) == ["r1", "r2"]


def test_an_id_of_another_client_confirms_nothing() -> None:
    outbox = filled(said(1), asked(1))
    outbox.confirm("somebody else's")
    outbox.confirm(None)
    assert ids(outbox) == ["t1", "r1"]


def test_with_its_answer_a_request_and_all_before_it_are_done() -> None:
    outbox = filled(said(1), asked(1), UserInterrupt(id="i"), said(2), asked(2))
    outbox.begin(ResponseStart(request_id="x"))
    outbox.end(ResponseEnd(request_id="x"))
    assert ids(outbox) == ["t2", "r2"]


def test_answers_are_for_the_oldest_request_without_one() -> None:
    outbox, answers = Outbox(), [Answer(), Answer()]
    for number, answer in enumerate(answers):
        outbox.add(asked(number), answer)
    for name in ("x", "y"):
        outbox.hear(ResponseStart(request_id=name))
    for name in ("y", "x"):
        outbox.hear(ResponseChunk(text=name, request_id=name))
        outbox.hear(ResponseEnd(request_id=name))
    assert [str(answer.reply) for answer in answers] == ["x", "y"]


def test_an_answer_that_names_its_request_is_for_that() -> None:
    outbox, answers = Outbox(), [Answer(), Answer()]
    for number, answer in enumerate(answers):
        outbox.add(asked(number), answer)
    outbox.hear(ResponseStart(request_id="r1"))
    outbox.hear(ResponseEnd(request_id="r1"))
    assert [answer.over for answer in answers] == [False, True]


def named(kind: type[ResponseStart | ResponseEnd], answer: str, request: str) -> LiveEvent:
    return kind(request_id=answer, metadata={"request": request})


def test_an_answer_is_for_the_request_that_its_metadata_names_and_for_no_other() -> None:
    outbox, answers = Outbox(), [Answer(), Answer()]
    for number, answer in enumerate(answers):
        outbox.add(asked(number), answer)
    for name, request in (("turn-1", "somebody else's"), ("turn-2", "r1")):
        outbox.hear(named(ResponseStart, name, request))
        outbox.hear(ResponseChunk(text=name, request_id=name))
        outbox.hear(named(ResponseEnd, name, request))
    assert [answer.reply for answer in answers] == [None, "turn-2"]
    outbox.hear(ResponseStart(request_id="turn-3"))
    outbox.hear(ResponseEnd(request_id="turn-3"))
    assert not answers[0].over


def test_an_end_that_names_a_request_ends_it_also_where_its_start_did_not_come() -> None:
    outbox, answer = Outbox(), Answer()
    outbox.add(asked(1), answer)
    outbox.hear(named(ResponseEnd, "turn-1", "r1"))
    assert answer.reply == ""
    assert ids(outbox) == []


def test_an_answer_that_began_earlier_is_not_for_a_request_of_this_connection() -> None:
    outbox, answer = Outbox(), Answer()
    outbox.add(asked(1), answer)
    outbox.hear(ResponseStart(request_id="turn-1", resumed=True))
    outbox.hear(ResponseEnd(request_id="turn-1"))
    assert not answer.over
    assert ids(outbox) == ["r1"]
    outbox.hear(ResponseStart(request_id="turn-2", resumed=True))
    outbox.hear(ResponseEnd(request_id="turn-2"))
    assert answer.reply is not None


async def test_an_answer_that_failed_raises_what_its_own_error_says() -> None:
    outbox, answers = Outbox(), [Answer(), Answer()]
    for number, answer in enumerate(answers):
        outbox.add(asked(number), answer)
        outbox.hear(named(ResponseStart, f"turn-{number}", f"r{number}"))
    for name, said in (("turn-1", "of mine"), ("turn-9", "of another")):
        payload = {"request_id": name}
        outbox.hear(AgentErrorEvent(message=said, severity="fatal", payload=payload))
    outbox.hear(ResponseEnd(request_id="turn-1", discarded=True))
    with pytest.raises(LiveError, match="of mine"):
        await answers[1].whole()
    assert not answers[0].over


async def test_a_warning_about_an_answer_is_told_when_the_answer_is_discarded() -> None:
    outbox, answer = Outbox(), Answer()
    outbox.add(asked(1), answer)
    outbox.hear(named(ResponseStart, "turn-1", "r1"))
    outbox.hear(AgentErrorEvent(message="no model", payload={"request_id": "turn-1"}))
    assert not answer.over
    outbox.hear(ResponseEnd(request_id="turn-1", discarded=True))
    with pytest.raises(LiveError, match="no model"):
        await answer.whole()


def test_a_request_that_is_sent_again_takes_another_answer_in_place_of_its_first() -> None:
    outbox, answer = Outbox(), Answer()
    outbox.add(asked(1), answer)
    for name in ("x", "y"):
        outbox.hear(ResponseStart(request_id=name))
        outbox.hear(ResponseChunk(text=f"{name} ", request_id=name))
        assert ids(outbox) == ["r1"]
    outbox.hear(ResponseEnd(request_id="y"))
    assert str(answer.reply) == "y "
    assert ids(outbox) == []


def test_an_answer_that_nobody_asked_for_is_nobodys() -> None:
    outbox, answer = Outbox(), Answer()
    outbox.hear(ResponseStart(request_id="greeting"))
    outbox.add(asked(1), answer)
    outbox.hear(ResponseEnd(request_id="greeting"))
    assert not answer.over


def test_a_mark_of_a_moment_is_not_sent_again() -> None:
    outbox = filled(UserJoined(id="j"), UserStartedSpeaking(id="s"))
    assert ids(outbox) == []


def test_the_outbox_is_bounded() -> None:
    outbox = filled(*(said(number) for number in range(SIZE + 1)))
    kept = ids(outbox)
    assert (len(kept), kept[0], kept[-1]) == (SIZE, "t1", f"t{SIZE}")
