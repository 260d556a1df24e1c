"""Frames: what is wrong with one is said, and every event comes back as it was sent."""

from __future__ import annotations

import json
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tertulia.errors import InvalidFrame, InvalidInput
from tertulia.wire.events import (
    OWN,
    AgentLog,
    AgentReady,
    LiveEvent,
    ResponseChunk,
    SystemInit,
    TransferCall,
    TransferOptions,
    UserPressedKey,
    canonical,
    event_types,
)
from tertulia.wire.frames import MAX_FRAME, decode, encode

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
LEAVES = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | TEXTS
JSON: Any = st.recursive(
    LEAVES | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
PLAIN: dict[Any, Any] = {
    str: TEXTS,
    int: st.integers(-(2**63), 2**63),
    float: st.floats(allow_nan=False, allow_infinity=False),
    bool: st.booleans(),
    type(None): st.none(),
    Any: JSON,
}


def values(hint: Any) -> Any:
    """All values that a type allows."""
    if hint in PLAIN:
        return PLAIN[hint]
    origin, inside = get_origin(hint), get_args(hint)
    if origin is Literal:
        return st.sampled_from(inside)
    if origin is list:
        return st.lists(values(inside[0]), max_size=3)
    if origin is dict:
        return st.dictionaries(TEXTS, values(inside[1]), max_size=3)
    if inside:
        return st.one_of([values(each) for each in inside])
    return made(hint)


def made(kind: Any) -> Any:
    """All objects of a class of events, or of a struct within one."""
    hints = get_type_hints(kind)
    fields = {name: values(hints[name]) for name in kind.__struct_fields__}
    return st.fixed_dictionaries(fields).map(lambda each: kind(**each))


def _good_or_refused(data: bytes | str) -> None:
    refused = None
    try:
        assert isinstance(decode(data), LiveEvent)
    except InvalidFrame as error:
        refused = error
    if refused is not None:
        assert refused.code in {"bad_json", "no_type", "unknown_type", "invalid_field"}
        assert len(str(refused)) < 2_000


@pytest.mark.parametrize("examples", [20, pytest.param(200, marks=pytest.mark.soak)])
@pytest.mark.parametrize("kind", OWN, ids=lambda kind: kind.__name__)
def test_every_event_comes_back_as_it_was_sent(kind: type[LiveEvent], examples: int) -> None:
    @settings(max_examples=examples)
    @given(sent=made(kind))
    def comes_back(sent: LiveEvent) -> None:
        for frame in (encode(sent), encode(sent).decode()):
            back = decode(frame, limit=1 << 20)
            assert type(back) is kind
            assert msgspec.structs.asdict(back) == msgspec.structs.asdict(sent)
        assert json.loads(encode(sent))["type"] == kind.type

    comes_back()


@given(st.binary(max_size=200) | st.text(max_size=200))
def test_anything_at_all_is_an_event_or_an_invalid_frame(data: bytes | str) -> None:
    _good_or_refused(data)


@given(
    st.sampled_from(sorted(event_types())),
    st.dictionaries(
        st.sampled_from(sorted({name for kind in OWN for name in kind.__struct_fields__})), JSON
    ),
    st.data(),
)
def test_events_with_wrong_fields_and_broken_ends_are_refused_or_good(
    kind: str, fields: dict[str, Any], data: st.DataObject
) -> None:
    frame = json.dumps({**fields, "type": kind}).encode()
    cut = data.draw(st.integers(0, len(frame)))
    for each in (frame, frame[:cut], frame[cut:], frame[:cut] + b"\xff" + frame[cut:]):
        _good_or_refused(each)


@pytest.mark.parametrize(
    ("frame", "code", "says"),
    [
        (b"", "bad_json", "no JSON object"),
        (b"{", "bad_json", "no JSON object"),
        ("{" * 100_000, "bad_json", "no JSON object"),
        (b"[" * 100_000, "bad_json", "no JSON object"),
        (b'\xff\xfe{"type":"system.init"}', "bad_json", "UTF-8"),
        (b"null", "bad_json", "send an object"),
        (b'"system.init"', "bad_json", "send an object"),
        (b"[]", "bad_json", "send an object"),
        (b"{}", "no_type", "has no type"),
        (b'{"type":7}', "no_type", "has no type"),
        (b'{"type":null}', "no_type", "has no type"),
        (b'{"type":"sytem.init"}', "unknown_type", "did you mean 'system.init'"),
        (b'{"type":""}', "unknown_type", "''"),
        (json.dumps({"type": "x" * 10_000}).encode(), "unknown_type", "…"),
        (b'{"type":"system.user.dtmf"}', "invalid_field", "digit"),
        (b'{"type":"system.user.dtmf","digit":5}', "invalid_field", "$.digit"),
        (b'{"type":"system.init","after":"1"}', "invalid_field", "$.after"),
        (b'{"type":"system.init","after":1.5}', "invalid_field", "$.after"),
        (
            b'{"type":"system.init","session_context":{"conversation_type":"fax"}}',
            "invalid_field",
            "$.session_context.conversation_type",
        ),
        (
            b'{"type":"agent.transcript.update","role":"root","content":"x"}',
            "invalid_field",
            "$.role",
        ),
    ],
    ids=str,
)
def test_what_is_wrong_with_a_frame_is_said(frame: bytes | str, code: str, says: str) -> None:
    with pytest.raises(InvalidFrame) as refused:
        decode(frame)
    assert refused.value.code == code
    assert says in str(refused.value)
    assert len(str(refused.value)) < 500


def test_a_frame_at_the_limit_is_good_and_one_byte_more_is_too_large() -> None:
    empty = encode(UserPressedKey(digit=""))
    most = encode(UserPressedKey(digit="x" * (MAX_FRAME - len(empty))))
    assert len(most) == MAX_FRAME
    assert isinstance(decode(most), UserPressedKey)
    with pytest.raises(InvalidFrame, match="the limit is 262,144") as refused:
        decode(most + b" ")
    assert refused.value.code == "too_large"


def test_the_limit_of_a_text_frame_is_of_its_bytes() -> None:
    frame = encode(UserPressedKey(digit="ü" * (MAX_FRAME * 3 // 4))).decode()
    assert len(frame.encode()) > MAX_FRAME
    with pytest.raises(InvalidFrame):
        decode(frame)


def test_keys_that_a_class_does_not_have_are_ignored() -> None:
    event = decode(b'{"type":"system.user.dtmf","digit":"5","color":{"a":[1]}}')
    assert isinstance(event, UserPressedKey)
    assert event.digit == "5"


def test_the_words_of_the_protocol_are_on_the_wire() -> None:
    transfer = TransferCall(transfer_call_number="+1", transfer_options=TransferOptions())
    assert json.loads(encode(transfer))["transfer_options"]["type"] == "cold_transfer"
    ready = json.loads(encode(AgentReady(resume_for=30.0)))
    assert {"type", "session_id", "seq", "resume_for", "resumed", "received"} <= ready.keys()
    assert decode(b'{"type":"system.init"}').__class__ is SystemInit


@pytest.mark.parametrize("value", [object(), {1, 2}.__iter__(), "\ud800", lambda: None])
def test_a_value_that_is_no_json_is_an_invalid_frame(value: Any) -> None:
    with pytest.raises(InvalidFrame, match=r"agent\.log") as refused:
        encode(AgentLog(name="n", payload={"a": value}))
    assert refused.value.code == "invalid_field"


def test_a_value_without_an_end_is_an_invalid_frame() -> None:
    around: list[Any] = []
    around.append(around)
    with pytest.raises(InvalidFrame):
        encode(AgentLog(name="n", payload={"a": around}))


def test_events_are_frozen_and_equal_only_to_themselves() -> None:
    first, second = ResponseChunk(text="a"), ResponseChunk(text="a")
    assert first != second
    assert len({first, second, first}) == 2
    with pytest.raises(AttributeError, match="immutable"):
        first.text = "b"  # pyright: ignore[reportAttributeAccessIssue]


def test_a_type_that_another_class_has_is_refused() -> None:
    with pytest.raises(InvalidInput, match="has already"):

        class Again(LiveEvent, type="agent.speak"):  # pyright: ignore[reportUnusedClass]
            pass


@pytest.mark.parametrize("kind", ["", "a\nb", "x" * 65, 7])
def test_a_type_that_cannot_be_is_refused(kind: Any) -> None:
    with pytest.raises(InvalidInput, match="printable text"):

        class Wrong(LiveEvent, type=kind):  # pyright: ignore[reportUnusedClass]
            pass


def test_an_event_of_an_application_is_decoded_once_its_class_is_there() -> None:
    with pytest.raises(InvalidFrame, match="not known"):
        decode(b'{"type":"test.late","note":"x"}')

    class Late(LiveEvent, type="test.late"):
        note: str

    event = decode(b'{"type":"test.late","note":"x"}')
    assert isinstance(event, Late)
    assert event.note == "x"
    with pytest.raises(InvalidFrame, match=r"\$\.note"):
        decode(b'{"type":"test.late","note":1}')


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("system.user_joined", "system.user.joined"),
        ("agent.end_call", "agent.end_call"),
        ("agent.llm_response_chunk", "agent.llm.response.chunk"),
        ("agent.transfer_call", "agent.transfer_call"),
        ("shop.nothing", "shop.nothing"),
    ],
)
def test_printed_aliases_mean_their_type(name: str, kind: str) -> None:
    assert canonical(name) == kind
